"""An arena whose trials follow known curves."""

import math

from poise.tuning import Arena


class Curves(Arena):
    """Loss of a trial after t epochs: quality + spread · exp(-3 t / max_epochs), `quality` from its learning rate."""

    def __init__(self, max_epochs=27, quality=lambda recipe: abs(math.log10(recipe.optimizer.lr / 1e-2)), broken=()):
        self.max_epochs, self.quality, self.broken = max_epochs, quality, set(broken)
        self.recipes, self.epochs, self.left, self.calls = {}, {}, set(), []

    def enter(self, entries):
        assert not set(entries) & set(self.recipes)
        self.recipes |= entries
        self.epochs |= dict.fromkeys(entries, 0)

    def advance(self, targets):
        assert not set(targets) & self.left
        self.calls.append(dict(targets))
        for number, until in targets.items():
            self.epochs[number] = max(self.epochs[number], until)

    def curve(self, number):
        if number in self.broken:
            return []
        best = self.quality(self.recipes[number])
        return [best + math.exp(-3 * t / self.max_epochs) for t in range(1, self.epochs[number] + 1)]

    def failed(self, number):
        return number in self.broken

    def leave(self, numbers):
        self.left |= set(numbers)

    def seconds(self, number):
        return 0.1 * self.epochs[number]

    def engine(self, number):
        return "known"
