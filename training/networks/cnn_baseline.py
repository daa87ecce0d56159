"""The homework's CNN, exactly as its table says: 3,177,418 parameters on 32×32 RGB, 10 classes."""

import copy

from torch import Tensor, nn


class BaselineCNN(nn.Sequential):
    """Two convolutions and three dense layers, with no activation between the dense layers.

    Input: float [n, 3, 32, 32]; output: logits [n, classes].

    The table was written for TensorFlow, whose ``padding="same"`` puts what it must add on the
    right first: with stride 2 and a 3-wide kernel on 16 columns that is 0 left and 1 right. PyTorch
    pads both sides alike, so the second convolution is padded by a layer of its own.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout(0.25)
        self.pad2 = nn.ZeroPad2d((0, 1, 1, 1))  # left, right, top, bottom
        self.conv2 = nn.Conv2d(32, 64, 3, stride=(1, 2))
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.dropout2 = nn.Dropout(0.25)
        self.flatten = nn.Flatten()
        self.dense1 = nn.Linear(64 * 8 * 4, 1024)
        self.dropout3 = nn.Dropout(0.25)
        self.dense2 = nn.Linear(1024, 1024)
        self.dropout4 = nn.Dropout(0.25)
        self.dense3 = nn.Linear(1024, classes)

    def early_layer(self) -> nn.Module:
        """The first convolution, after pooling: it shows colours and textures."""
        return self.pool1

    def folded(self) -> "BaselineCNN":
        """A copy in eval mode; there is no BatchNorm to fold."""
        return copy.deepcopy(self).eval()

    def prepare(self, images: Tensor) -> None:
        """Nothing here depends on the training images."""
