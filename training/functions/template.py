"""What ``gradserve init`` writes: a file that publishes as it is, with comments."""

TEMPLATE = '''"""A function to publish:  gradserve publish {file}:build --name {model}"""

import torch
from torch import nn

from gradserve import Publication


def build() -> Publication:
    # Your own trained module goes here, or any function of tensors:
    #     net = MyNetwork(); net.load_state_dict(torch.load("weights.pt", weights_only=True))
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).double()

    # At least 8 rows of what the function is meant for, the batch first. Give each input a name,
    # in the order in which the function takes them. float64 is checked to 1e-9, float32 to 1e-5.
    x = torch.randn(64, 3, dtype=torch.float64)

    return Publication(
        net,
        examples={{"x": x}},
        outputs=("y",),
        # Any of: gradient (outputs of one number a row), jacobian, vjp, jvp, hvp, hessian.
        derivatives=("jacobian", "vjp", "jvp", "hvp"),
        # Inputs without a batch:            parameters={{"theta": torch.tensor([1.0, 2.0])}}
        # A loss, and its gradient by every weight:
        #     loss=lambda y, label: ((y - label) ** 2).sum(1), targets={{"label": labels}}
        description="What it computes, in a sentence",
    )
'''
