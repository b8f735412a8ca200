"""What a machine offers depends on its CPU, and what the suites are is fixed for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from hived.transport.suites import AESGCM, AESGCM_LONG, NOISE, offered

X86 = "processor\t: 0\nflags\t\t: fpu sse4_2 {}avx2\nbugs\t\t: spectre_v1\n"
ARM64 = "processor\t: 0\nFeatures\t: fp asimd {}pmull sha2\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize("text", [X86.format("aes "), ARM64.format("aes ")])
def test_aes_is_offered_where_the_cpu_has_it(tmp_path: Path, text: str) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text(text)
    assert offered(cpu) == (AESGCM_LONG, AESGCM, NOISE)


@pytest.mark.parametrize(
    "text",
    [
        X86.format(""),
        ARM64.format(""),
        X86.format("vaes "),
        "",
        "model name\t: aes\n",
        "flags\t\t: fpu\nFeatures\n",
    ],
)
def test_and_nowhere_else(tmp_path: Path, text: str) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text(text)
    assert offered(cpu) == (NOISE,)


def test_an_unknown_machine_offers_what_everybody_speaks(tmp_path: Path) -> None:
    assert offered(tmp_path / "absent") == (NOISE,)
    assert offered(tmp_path) == (NOISE,)
    (tmp_path / "cpuinfo").write_bytes(b"flags : \xff\xfe aes\n")
    assert offered(tmp_path / "cpuinfo") == (AESGCM_LONG, AESGCM, NOISE)


def test_this_machine() -> None:
    assert offered()[-1] == NOISE


def test_the_suites() -> None:
    assert (NOISE.protocol, NOISE.noise_name) == ("/noise", "Noise_XX_25519_ChaChaPoly_SHA256")
    assert (NOISE.prefix, NOISE.max_record, NOISE.rekey_after) == (2, 65535, None)
    for suite in (AESGCM, AESGCM_LONG):
        assert suite.noise_name == "Noise_XX_25519_AESGCM_SHA256"
        assert suite.rekey_after == 2**20
    assert (AESGCM.prefix, AESGCM.max_record) == (2, 65535)
    assert (AESGCM_LONG.prefix, AESGCM_LONG.max_plain) == (4, 131072 + 12)
