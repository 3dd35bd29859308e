"""The machine on listings of a few lines, whose results are known. No machine code of anybody else is needed."""

import struct
from fractions import Fraction

import numpy as np
import pytest

from simulator import arithmetic
from simulator.errors import Deadlock, EndlessLoop, OutOfBounds, UnknownInstruction
from simulator.machine import Memory, launch
from simulator.sass import Kernel


def run(body: str, *inputs: int, threads: int = 32, out: int | None = None) -> np.ndarray:
    """The words that each thread leaves in R9; the inputs are the parameters from 0x168 on."""
    listing = f"""
    S2R R0, SR_TID.X ;
    {body.strip()}
    MOV R8, 0x4 ;
    IMAD.WIDE.U32 R6, R0, R8, c[0x0][0x160] ;
    STG.E [R6.64], R9 ;
    EXIT ;
    """
    memory = Memory()
    place = memory.put(np.zeros(threads if out is None else out, np.float32))
    parameters = struct.pack(f"<Q{len(inputs)}I", place, *(i & 0xFFFFFFFF for i in inputs))
    launch(Kernel.parse("test", "sm_80", listing), memory, parameters, (1, 1), (threads, 1))
    return memory.get(place, threads).view(np.uint32)


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def test_a_borrow_reaches_the_high_half():
    # 0x1_00000000 - 0 and - 1, in two halves: minus zero must carry.
    for low, expected in ((0, 1), (1, 0)):
        body = """
        MOV R5, c[0x0][0x168] ;
        MOV R4, 0x1 ;
        IADD3 R3, P0, RZ, -R5, RZ ;
        IADD3.X R9, R4, ~RZ, RZ, P0, !PT ;
        """
        assert set(run(body, low)) == {expected}


def test_integers():
    assert set(run("IMAD.WIDE R8, R0, -0x2, RZ ;\n MOV R9, R8 ;")) == {(-2 * k) & 0xFFFFFFFF for k in range(32)}
    assert set(run("MOV R5, 0xfffffff0 ;\n SHF.R.S32.HI R9, RZ, 0x2, R5 ;")) == {0xFFFFFFFC}
    assert set(run("MOV R5, 0xf0 ;\n LOP3.LUT R9, R5, 0x3c, RZ, 0xc0, !PT ;")) == {0x30}
    assert set(run("MOV R5, 0x11223344 ;\n PRMT R9, R5, 0x0123, RZ ;")) == {0x44332211}
    assert set(run("MOV R5, 0x1 ;\n LEA.HI R9, R5, 0x7, RZ, 0x1f ;")) == {7}


def test_the_fused_product_rounds_once():
    random = np.random.default_rng(1)
    scale = 2.0 ** random.integers(-70, 60, (3, 4000))
    a, b, c = (random.standard_normal((3, 4000)) * scale).astype(np.float32)
    c = np.where(random.random(4000) < 0.5, -(a * b) * np.float32(1 + 2**-20), c)  # cancellation, and subnormal results
    found = arithmetic.fma(a, b, c)
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c)]
    for value, truth, at in zip(found, exact, range(4000)):
        below, above = (np.nextafter(value, np.float32(d)) for d in (-np.inf, np.inf))
        error = abs(Fraction(float(value)) - truth)
        assert error <= abs(Fraction(float(below)) - truth) and error <= abs(Fraction(float(above)) - truth), at
        assert Fraction(float(arithmetic.fma(a[at : at + 1], b[at : at + 1], c[at : at + 1], "RM")[0])) <= truth
        assert Fraction(float(arithmetic.fma(a[at : at + 1], b[at : at + 1], c[at : at + 1], "RP")[0])) >= truth


def test_a_product_and_a_sum_are_not_the_fused_product():
    a, c = 1 + 2.0**-12, -1 - 2.0**-11
    fused = run("MOV R3, c[0x0][0x168] ;\n MOV R4, c[0x0][0x16c] ;\n FFMA R9, R3, R3, R4 ;", bits(a), bits(c))
    apart = run(
        "MOV R3, c[0x0][0x168] ;\n MOV R4, c[0x0][0x16c] ;\n FMUL R5, R3, R3 ;\n FADD R9, R5, R4 ;", bits(a), bits(c)
    )
    assert set(fused) == {bits(2.0**-24)} and set(apart) == {0}


def test_nan_is_canonical_and_minima_prefer_numbers():
    nan, one = bits(float("nan")), bits(1.0)
    read = "MOV R3, c[0x0][0x168] ;\n MOV R4, c[0x0][0x16c] ;\n"
    assert set(run(read + "FADD R9, R3, R4 ;", nan, one)) == {0x7FFFFFFF}
    assert set(run(read + "FMNMX R9, R3, R4, !PT ;", nan, one)) == {one}
    assert set(run(read + "FMNMX.NAN R9, R3, R4, !PT ;", nan, one)) == {0x7FFFFFFF}


def test_shuffles():
    down = run("SHFL.DOWN PT, R9, R0, 0x10, 0x1f ;")
    assert list(down) == [*range(16, 32), *range(16, 32)]  # beyond the end a lane keeps its own
    assert list(run("SHFL.BFLY PT, R9, R0, 0x3, 0x1f ;")) == [k ^ 3 for k in range(32)]
    assert list(run("SHFL.IDX PT, R9, R0, 0x5, 0x1f ;", threads=64)) == [5] * 32 + [37] * 32


def test_parted_lanes_meet_again():
    """Lane k goes round k times, and then all exchange: which works only if they wait for each other."""
    body = """
    MOV R4, R0 ;
    MOV R5, RZ ;
    BSSY B0, 0x90 ;
    ISETP.EQ.AND P0, PT, R4, RZ, PT ;
    @P0 BRA 0x90 ;
    IADD3 R4, R4, -0x1, RZ ;
    IADD3 R5, R5, 0x2, RZ ;
    BRA 0x40 ;
    BSYNC B0 ;
    SHFL.BFLY PT, R9, R5, 0x1f, 0x1f ;
    """
    assert list(run(body)) == [2 * (31 - k) for k in range(32)]


def test_a_barrier_orders_the_warps():
    body = """
    IMAD.SHL.U32 R3, R0, 0x4, RZ ;
    STS [R3], R0 ;
    BAR.SYNC.DEFER_BLOCKING 0x0 ;
    LOP3.LUT R3, R3, 0x80, RZ, 0x3c, !PT ;
    LDS R9, [R3] ;
    """
    assert list(run(body, threads=64)) == [k ^ 32 for k in range(64)]


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ("FROB R9, R0 ;", UnknownInstruction, "FROB R9, R0"),
        ("FADD.SAT R9, R0, R0 ;", UnknownInstruction, "SAT"),
        ("MOV R9, c[0x3][0x10] ;", UnknownInstruction, "c\\[0x3\\]"),
        ("BRA 0x10 ;", EndlessLoop, "BRA"),
        ("LDS R9, [R0+0x10000] ;", OutOfBounds, "shared memory"),
        ("MOV R3, 0x10 ;\n MOV R4, RZ ;\n LDG.E R9, [R3.64] ;", OutOfBounds, "0x10"),
        ("ISETP.EQ.AND P0, PT, R0, RZ, PT ;\n @P0 BRA 0x50 ;\n WARPSYNC 0xffffffff ;\n NOP ;\n BAR.SYNC 0x0 ;", Deadlock, "wait"),
        ("ISETP.EQ.AND P0, PT, R0, RZ, PT ;\n @P0 SHFL.DOWN PT, R9, R0, 0x1, 0x1f ;", Deadlock, "elsewhere"),
    ],
)  # fmt: skip
def test_errors_are_typed(body, error, text):
    with pytest.raises(error, match=text):
        run(body)


def test_an_access_beyond_an_array_is_found():
    with pytest.raises(OutOfBounds, match="not allocated"):
        run("MOV R9, RZ ;", out=16)  # 32 threads write
