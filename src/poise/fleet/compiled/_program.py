"""A network and its recipe as tables of numbers, which machine code walks through.

One program is compiled for all networks: what differs between them is data. A *value* is a matrix with a row for each
row of the batch, or K rows for K members that share the network; all values lie one after the other in a flat buffer,
value v from `offset[v] · capacity` on, where the capacity is the largest number of rows. A *strength* is a number that
may change from step to step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# What a row of `Program.ops` does, in column CODE.
LINEAR, CHAIN, NOISE, DROP_PATH, ADD, SCALE, ADAPT, HEADS, STEM = range(9)
# Its columns. Offsets of values are in columns of the batch, those of parameters in numbers; -1 where there is none.
(
    CODE,
    SOURCE,  # offset of the value that is read
    TARGET,  # offset of the value that is written
    SOURCE_WIDTH,
    WIDTH,  # of the target
    WEIGHT,  # offset of a parameter
    BIAS,
    NORM,
    GHOST_SIZE,
    RUNNING,  # offset of running_mean in the statistics; running_var follows
    ACTIVATION,
    DROP,
    STRENGTH,  # index of p or std
    STREAM,  # index of the stream that names the random numbers
    ACCUMULATE,  # 1 if the gradient of the source is added to one that is there
    FIRST,  # first column of the source whose gradient is needed; SOURCE_WIDTH for none
    MOMENTS,  # offset of mean and rstd in `Buffers.moments`, in units of their largest size
    OTHER,  # ADD: offset of the second value
    EPS,  # index in `Program.constants`
    SOURCE_GRAD,  # offset of the gradient of the source in `Buffers.grads`
    TARGET_GRAD,
    ALPHA,  # offset of what is learned of a nonlinearity or of a scale
    RATE,  # of it, an index in `Program.constants`
    SOURCE_COPIES,  # rows of the source for each row of the batch: 1, or the number of members
    COPIES,  # of the target
    PIECES,  # STEM: columns of the weight before those of the source, for numbers whose encoding is not written down
    NUM_COLUMNS,
) = range(27)
NO_NORM, BATCH_NORM, LAYER_NORM = range(3)
NUM_WAVES = 7  # columns of `Program.waves`
NO_DROP, DROPOUT, ALPHA_DROPOUT = range(3)
BINARY, MULTICLASS, REGRESSION = range(3)
# What a row of `Program.updates` does: (code, strength, bit set of roles).
WEIGHT_DECAY, GRADIENT_CLIP, ADAM, L1, GROUP_LASSO, MAX_NORM = range(6)
# What a row of `Program.batch` does: (code, strength, stream, stream, stream).
MIXUP, FEATURE_MASK = range(2)
# The first strengths are the same in every program.
LEARNING_RATE, SMOOTHING, L2, NUM_FIXED = range(4)


class Program(NamedTuple):
    """What is to be computed. Integers are int64 arrays.

    Args:
        ops: (number of operations, NUM_COLUMNS): the network in order of execution.
        constants: Numbers that are added to variances, and rates of what is learned.
        sizes: See `Sizes`.
        tables: (category columns, 4): offset of the table, rows, its width, column of the input value.
        waves: (0 or 1, NUM_WAVES): features, frequencies and outputs of each, offsets of frequencies, weight and bias,
            column of the input value.
        params: (number of parameters, 4): offset, rows, columns, role.
        batch: Changes of the batch.
        updates: Of gradients and weights, in order.
        streams: uint64 seeds of the streams.
        start: (D, T) left edges of bins, float.
        slope: (D, T) likewise.
        low: (D, T) bounds of the encoded number.
        high: (D, T) likewise.
        optimizer: β1, β2, eps and the factor of the learning rate of biases, float64.
    """

    ops: Any
    constants: Any
    sizes: Any
    tables: Any
    waves: Any
    params: Any
    batch: Any
    updates: Any
    streams: Any
    start: Any
    slope: Any
    low: Any
    high: Any
    optimizer: Any


# Entries of Program.sizes.
(
    CAPACITY,
    NUM_CONTINUOUS,
    NUM_NUMERIC,
    NUM_CATEGORICAL,
    IN_WIDTH,
    IN_GRAD,  # offset of the gradient of the input value
    OUT_OFFSET,
    NUM_OUTPUTS,
    TASK,
    MOMENTS_SIZE,
    TOTAL_WIDTH,
    WIDEST,
    NUM_MEMBERS,
    NUM_PIECES,  # columns of the encoding that the input value lacks, see STEM
    NUM_SIZES,
) = range(15)


class Rows(NamedTuple):
    """Encoded rows: numeric (N, D), categorical (N, C) int64, targets (N, K), weight (N,)."""

    numeric: Any
    categorical: Any
    targets: Any
    weight: Any


class Weights(NamedTuple):
    """The flat vectors of a State, and the gradient."""

    weights: Any
    grad: Any
    exp_avg: Any
    exp_avg_sq: Any
    average: Any
    statistics: Any


class Buffers(NamedTuple):
    """Memory for one training at a time; nothing is kept in it from one epoch to the next.

    `left` and `right` hold the factors of a product as pairs of bfloat16 numbers; the type uint32 asks for that.
    `pieces` and `shares` say where each number lies among its bins, `stem` is the memory of `_stem.py`.
    """

    values: Any
    grads: Any
    masks: Any
    moments: Any
    transposed: Any
    scratch: Any
    left: Any
    right: Any
    rows: Any
    bits: Any
    store: Any
    numeric: Any
    categorical: Any
    other_numeric: Any
    other_categorical: Any
    targets: Any
    other_targets: Any
    weight: Any
    other_weight: Any
    order: Any
    pieces: Any
    shares: Any
    stem: Any
