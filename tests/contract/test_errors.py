"""Every error of samrt is a SamrtError and the builtin that fits it."""

from __future__ import annotations

import inspect
import pickle

import pytest

import samrt
from samrt import errors

BUILTINS = {
    "ImageError": ValueError,
    "PromptError": ValueError,
    "BundleError": ValueError,
    "OptionError": ValueError,
    "DatasetError": ValueError,
    "BackendError": RuntimeError,
    "BackendUnavailableError": ImportError,
    "ExtraUnavailableError": ImportError,
    "KernelError": ImportError,
    "ModelNotFoundError": LookupError,
    "OutputError": OSError,
    "DownloadError": OSError,
    "VerificationError": ValueError,
}
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, BaseException)
}


def test_the_table_is_complete() -> None:
    assert set(CLASSES) == {*BUILTINS, "SamrtError"} == set(errors.__all__)


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_each_error_has_two_parents(name: str) -> None:
    error = CLASSES[name]
    assert issubclass(error, errors.SamrtError)
    assert issubclass(error, BUILTINS[name])
    assert getattr(samrt, name) is error
    assert str(error("what, got, expected")) == "what, got, expected"
    copy = pickle.loads(pickle.dumps(error("text")))
    assert type(copy) is error
    assert str(copy) == "text"
