from typing import Any, Generic, NamedTuple, overload

from typing_extensions import Buffer, TypeVar

K = TypeVar("K", default=Any)
V = TypeVar("V", default=Any)
T = TypeVar("T")

class Elements(Generic[K, V]):
    def __getitem__(self, key: K, /) -> V: ...
    def __setitem__(self, key: K, value: V, /) -> None: ...
    def __delitem__(self, key: K, /) -> None: ...
    def __contains__(self, key: object, /) -> bool: ...
    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T, /) -> V | T: ...
    def _accelerate(
        self, owner: object, address: int, key: Any, value: Any, addressof: Any, /
    ) -> bool: ...

class TestRunResult(NamedTuple):
    retval: int
    data_out: bytes
    ctx_out: bytes
    duration_ns: int

class Runs:
    def test_run(
        self,
        data: Buffer | None = None,
        *,
        ctx: Buffer | None = None,
        repeat: int = 1,
        data_out_size: int | None = None,
        flags: int = 0,
        cpu: int = 0,
        batch_size: int = 0,
    ) -> TestRunResult: ...
    def _accelerate(self, owner: object, address: int, ctx_out: int, /) -> None: ...

def test_run(
    program: int,
    data: bytes | None,
    data_out_size: int,
    ctx: bytes | None,
    ctx_out: int,
    repeat: int,
    flags: int,
    cpu: int,
    batch_size: int,
    /,
) -> TestRunResult | int: ...
