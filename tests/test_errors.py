import inspect

import pytest

from geo4d import errors
from geo4d.errors import (
    Geo4DError,
    InputError,
    MissingExtraError,
    ResourceError,
    is_out_of_memory,
    memory_errors,
)


def test_kinds_of_failure_have_codes_of_their_own_but_for_packages_that_are_missing_or_broken() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Geo4DError)]
    special = [kind for kind in kinds if kind.__base__ not in (Geo4DError, Exception)]
    assert all(kind.exit_code == kind.__base__.exit_code for kind in special)
    codes = {kind.__name__: kind.exit_code for kind in kinds if kind not in special}
    assert codes.pop("PluginError") == codes["MissingExtraError"]
    assert len(set(codes.values())) == len(codes)
    assert 0 not in codes.values()
    assert 2 not in codes.values()  # that of a wrong command line


def test_a_missing_extra_says_what_to_install() -> None:
    text = str(MissingExtraError("fsspec", "remote", "packed clips"))
    assert text == "packed clips needs the package 'fsspec'; install it with: pip install 'geo4d[remote]'"


class OutOfMemoryError(RuntimeError):
    """As torch's: told by its name, because importing torch to compare would take long."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("x"),
        RuntimeError("CUDA out of memory. Tried to allocate"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_want_of_memory_has_many_words(error) -> None:
    assert is_out_of_memory(error)


def test_other_errors_are_not_taken_for_it() -> None:
    for error in (RuntimeError("shape mismatch"), OSError(28, "No space left on device"), KeyError("memory")):
        assert not is_out_of_memory(error)


def raised(cause: BaseException, *, hidden: bool = False) -> BaseException:
    try:
        try:
            raise cause
        except BaseException as error:
            if hidden:
                raise ValueError("bad input") from None
            raise ValueError("bad input") from error
    except ValueError as error:
        return error


def test_causes_are_looked_through_unless_they_are_hidden() -> None:
    assert is_out_of_memory(raised(MemoryError()))
    assert not is_out_of_memory(raised(MemoryError(), hidden=True))
    circle = ValueError("a")
    circle.__cause__ = circle
    assert not is_out_of_memory(circle)


def test_memory_that_runs_out_is_one_line_with_what_to_do() -> None:
    with pytest.raises(ResourceError) as found, memory_errors("aligning", "use less"):
        raise MemoryError
    assert str(found.value) == "out of memory while aligning; use less"
    assert isinstance(found.value.__cause__, MemoryError)


def test_what_said_more_already_stays_as_it_is() -> None:
    for error in (ResourceError("use --dtype bfloat16"), InputError("no such file")):
        with pytest.raises(type(error)) as found, memory_errors("aligning", "use less"):
            raise error
        assert found.value is error
