"""Functions with complex numbers inside, recorded in real ones, give what PyTorch gives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, fft, fx

from gradserve import Publication
from training.functions import eager, rowwise
from training.functions.function_spec import describe
from training.publish.agreement import GraphRunner
from training.publish.export import export
from training.publish.record import record

DOUBLE = torch.float64
ROWS = torch.randn(8, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))


def noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator)


KNOWN_TO_THE_EXPORTER = {"view_as_complex", "_fft_r2c", "_fft_c2c"}
WINDOW = torch.hann_window(6, dtype=DOUBLE)
FILTER, MATRIX = noise(5), noise(8, 8)


def autocorrelation(x: Tensor) -> Tensor:
    spectrum = fft.rfft(x, n=16)
    return fft.irfft(spectrum * spectrum.conj(), n=16)[:, :8]


FUNCTIONS = {
    "amplitude": lambda x: fft.rfft(x).abs(),
    "odd": lambda x: fft.rfft(x[:, :7], norm="ortho").abs().square(),
    "phase": lambda x: fft.rfft(x + 2)[:, 1:4].angle(),
    "filter": lambda x: fft.irfft(fft.rfft(x) * FILTER, n=8) ** 2,
    "autocorrelation": autocorrelation,
    "derivative": lambda x: fft.ifft(fft.fft(x**2) * fft.fftfreq(8, dtype=DOUBLE) * 2j).real,
    "two axes": lambda x: fft.fft2(x.reshape(-1, 2, 4)).abs(),
    "real two axes": lambda x: fft.irfft2(fft.rfft2(x.reshape(-1, 2, 4)) ** 2, s=(2, 4)),
    "short time": lambda x: torch.view_as_real(
        torch.stft(x, 6, window=WINDOW, return_complex=True)
    ),
    "exp": lambda x: (torch.exp(1j * x) * torch.complex(x, x**2)).abs(),
    "polar": lambda x: torch.polar(x.abs() + 1, x).imag,
    "matrix": lambda x: (x.to(torch.complex128) @ MATRIX).abs().square(),
    "log": lambda x: torch.log(torch.complex(x + 3, x)).imag,
    "root": lambda x: (torch.sqrt(torch.complex(x, x.flip(1))) / torch.complex(x, x)).real,
    "power": lambda x: (1 / torch.complex(x, x + 1) ** 3).imag,
    "parts": lambda x: torch.view_as_real(torch.stack([fft.rfft(x)] * 2, 1)).sum(-1).sin(),
}


def complex_operators(recorded: fx.GraphModule) -> set[str]:
    """Names of the operators whose results are complex."""
    return {
        node.target.overloadpacket.__name__
        for node in recorded.graph.nodes
        if isinstance(node.meta.get("val"), Tensor) and node.meta["val"].is_complex()
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_with_complex_numbers_inside(name: str) -> None:
    function: Callable[[Tensor], Tensor] = FUNCTIONS[name]
    spec = describe(Publication(function, {"x": ROWS}))
    generator = torch.Generator().manual_seed(3)
    outputs = eager.value(spec, [ROWS])
    cotangents = [torch.randn(each.shape, dtype=DOUBLE, generator=generator) for each in outputs]
    tangents = [torch.randn(ROWS.shape, dtype=DOUBLE, generator=generator)]
    many = [each.unsqueeze(1) for each in cotangents]
    along = [each.unsqueeze(1) for each in tangents]
    for rows, given, expected in (
        (spec.function, [], outputs),
        (rowwise.vjp_rows(spec, [0]), cotangents, eager.vjp(spec, [ROWS], many)),
        (rowwise.jvp_rows(spec), tangents, eager.jvp(spec, [ROWS], along)),
        (
            rowwise.hvp_rows(spec, [0]),
            [*tangents, *cotangents],
            eager.hvp(spec, [ROWS], along, many),
        ),
    ):
        arguments = [ROWS, *given]
        recorded = record(rows, arguments, [True] * len(arguments))
        assert complex_operators(recorded) <= KNOWN_TO_THE_EXPORTER
        for found, wanted in zip(recorded(*arguments), expected, strict=True):
            scale = float(wanted.abs().max()) or 1.0
            torch.testing.assert_close(
                found, wanted.reshape(found.shape), rtol=1e-11, atol=1e-11 * scale
            )


@pytest.mark.parametrize("size", [1, 2, 5, 6, 12])
def test_transforms_of_any_length_keep_their_digits(tmp_path: Path, size: int) -> None:
    """ONNX Runtime's inverse divides by the length in float32."""

    def back(x: Tensor) -> tuple[Tensor, ...]:
        z = torch.complex(x, x.flip(1))
        return (
            torch.cat(
                [
                    fft.ifft(z).real,
                    fft.irfft(z, n=size),
                    fft.irfft(z, norm="ortho"),
                    fft.hfft(x, norm="forward"),
                ],
                1,
            ),
        )

    x = torch.randn(4, size + 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(size))
    export(back, [x], ["x"], ["y"], tmp_path / "y.onnx")
    found = GraphRunner(tmp_path / "y.onnx")({"x": x.numpy()})["y"]
    torch.testing.assert_close(torch.from_numpy(found), back(x)[0], rtol=1e-13, atol=1e-13)


def test_an_operator_without_a_rule_is_named() -> None:
    with pytest.raises(NotImplementedError, match=r"aten\.tan'\) of complex numbers"):
        record(lambda x: (torch.tan(torch.complex(x, x)).real,), [ROWS], [True])
