"""An image classifier as functions: probabilities, familiarity and saliency, from raw pixels."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contract.signatures import FAMILIAR
from training.data.images import SIDE
from training.fit.normalise import Normalise
from training.publish.familiarity import Familiarity, with_features

LEAST_TO_CALIBRATE = 50
LARGEST_LOG_TEMPERATURE = 2.3  # a factor of 10, where every image is right


class Probabilities(nn.Module):
    """Image uint8 [n, side, side, 3] to class probabilities float32 [n, classes].

    With ``familiarity`` also to how familiar the image is, float32 [n], as a second output.
    Normalisation and temperature are inside, so that a server of the graph can't get them wrong.
    """

    def __init__(
        self,
        network: nn.Module,
        normalise: Normalise,
        temperature: float,
        familiarity: Familiarity | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.normalise = normalise
        self.temperature = temperature
        self.familiarity = familiarity

    @property
    def outputs(self) -> list[str]:
        """Their names."""
        return ["probabilities"] + ([FAMILIAR] if self.familiarity is not None else [])

    def prepare(self, image: Tensor) -> Tensor:
        """The network's input, float [n, 3, side, side]."""
        normalised: Tensor = self.normalise(image.permute(0, 3, 1, 2))
        return normalised

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.familiarity is None:
            return self._calibrated(self.network(self.prepare(image)))
        logits, features = with_features(self.network, self.prepare(image))
        return self._calibrated(logits), self.familiarity(logits, features)

    def _calibrated(self, logits: Tensor) -> Tensor:
        return (logits / self.temperature).softmax(1)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 that minimises the cross-entropy of logits / T on held-out images.

    C. Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 4.2. The
    arg max, and so the accuracy, stays as it is. Fewer than ``LEAST_TO_CALIBRATE`` images don't
    determine it: then it is 1, which changes nothing.
    """
    if len(labels) < LEAST_TO_CALIBRATE:
        return 1.0
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_temperature], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-10
    )
    logits = logits.double()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(logits / log_temperature.exp(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    bound = LARGEST_LOG_TEMPERATURE
    return float(log_temperature.detach().clamp(-bound, bound).exp())


def sample_images(rows: int, seed: int = 0, *, side: int = SIDE) -> Tensor:
    """Pictures for ``samples.npz``, uint8 [rows, side, side, 3]: coloured blobs, edges and noise.

    Made, not taken from the data: an artifact carries no training image.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    coarse = uniform(rows, 3, 4, 4)
    smooth = functional.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    angle = 2 * torch.pi * uniform(rows, 1, 1)
    edge = (x * angle.cos() + y * angle.sin() > uniform(rows, 1, 1) - 0.5).float()[:, None]
    image = (
        smooth + (uniform(rows, 3, 1, 1) - 0.5) * edge + 0.08 * (uniform(rows, 3, side, side) - 0.5)
    )
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def natural_images(rows: int, seed: int = 0, *, side: int = SIDE) -> Tensor:
    """Clouds, uint8 [rows, side, side, 3], mostly grey: noise with amplitudes like f^-1.6.

    Photographs have spectra of that kind. So of pictures that can be made these are the most
    familiar ones; the others' familiarity is 0 or little more, which would prove little.
    """
    generator = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.fftfreq(side))
    amplitude = frequency.clamp_min(1 / side) ** -1.6

    def field(channels: int) -> Tensor:
        white = torch.randn(rows, channels, side, side, generator=generator)
        clouds = torch.fft.ifft2(torch.fft.fft2(white) * amplitude).real
        return clouds / clouds.std((2, 3), keepdim=True)

    brightness = 80 + 90 * torch.rand(rows, 1, 1, 1, generator=generator)
    contrast = 35 + 50 * torch.rand(rows, 1, 1, 1, generator=generator)
    image = brightness + contrast * (0.9 * field(1) + 0.1 * field(3))
    return image.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
