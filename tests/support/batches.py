"""What several tests share."""

import itertools


def take(iterator, count):
    return list(itertools.islice(iterator, count))
