"""Hot loops. `reference` is plain torch and the truth that faster kernels are held against."""
