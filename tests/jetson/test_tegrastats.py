"""Lines of tegrastats, as boards have printed them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overflight.jetson import tegrastats

ORIN_NANO = (
    "05-15-2025 18:30:28 RAM 6982/7620MB (lfb 5x1MB) SWAP 2640/16384MB (cached 202MB) CPU [97%@1984,95%@1984,off,off] "
    "EMC_FREQ 18%@3199 GR3D_FREQ 84%@[713] NVENC 1%@115 NVDEC 40%@115 NVJPG off OFA off PVA0_FREQ off APE 174 "
    "cv0@-256C cpu@65.562C soc2@64.156C gpu@63.5C tj@65.562C VDD_IN 17946mW/15710mW VDD_CPU_GPU_CV 8896mW/7585mW "
    "VDD_SOC 3923mW/3515mW"
)
AGX_ORIN = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C GPU@-256C tj@44.343C "
    "VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
OLD = "RAM 2020/7852MB (lfb 1164x4MB) CPU [9%@345,21%@345] EMC_FREQ 0% GR3D_FREQ 0% GPU@41C VDD_IN 3140/3208"


def test_an_orin_nano_line() -> None:
    """Current power is the first of a pair; engines that are off and zones that sleep are left out."""
    reading = tegrastats.parse(ORIN_NANO, 5)
    assert reading is not None
    assert (reading.monotonic_ns, reading.power_mw, reading.gpu_mhz, reading.gpu_load) == (5, 17946, 713, 0.84)
    assert reading.cpu_mhz == (1984, 1984)
    assert reading.hottest_c == 65.562
    assert "cv0" not in reading.temperatures_c
    assert reading.memory_available == (7620 - 6982) << 20


def test_an_agx_orin_line() -> None:
    """Without VDD_IN the inputs are added up."""
    reading = tegrastats.parse(AGX_ORIN, 0)
    assert reading is not None
    assert reading.power_mw == 2340 + 390 + 4025
    assert set(reading.temperatures_c) == {"cpu", "tboard", "tj"}


def test_an_old_line() -> None:
    """Older releases print power without its unit and clocks without a number."""
    reading = tegrastats.parse(OLD, 0)
    assert reading is not None
    assert (reading.power_mw, reading.gpu_mhz, reading.temperatures_c) == (3140, None, {"gpu": 41.0})


def test_order_does_not_matter() -> None:
    """The same tokens in another order are the same reading."""
    groups = ORIN_NANO.split("SWAP", 1)
    assert tegrastats.parse(f"SWAP{groups[1]} {groups[0]}", 0) == tegrastats.parse(ORIN_NANO, 0)


def test_a_log_keeps_its_time() -> None:
    """Lines that say nothing take their place in time all the same."""
    times = [reading.monotonic_ns for reading in tegrastats.parse_log(f"{OLD}\n\n{OLD}\n", 500)]
    assert times == [0, 1000]


_tokens = st.lists(
    st.one_of(st.sampled_from(f"{ORIN_NANO} {AGX_ORIN} {OLD}".split()), st.text(max_size=12)), max_size=30
)


@given(_tokens.map(" ".join))
def test_the_parser_never_fails(line: str) -> None:
    """Torn and shuffled lines give a reading or None, and nothing absurd."""
    reading = tegrastats.parse(line, 0)
    if reading is not None:
        assert reading.gpu_load is None or 0 <= reading.gpu_load <= 1
        assert all(celsius > -60 for celsius in reading.temperatures_c.values())
