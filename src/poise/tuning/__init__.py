"""Search: what may vary, which recipes to try, who goes on, and what mattered."""

from poise.tuning._arena import Arena
from poise.tuning._domains import Domain, Float, Int, OneOf
from poise.tuning._space import Space

__all__ = ["Arena", "Domain", "Float", "Int", "OneOf", "Space"]
