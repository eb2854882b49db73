"""Alt texts say what the figure shows, and no more."""

import pytest
import torch

from vivit_edu import plots
from vivit_edu.training import History
from vivit_edu.volumes import Split

NAN = float("nan")


@pytest.mark.parametrize(
    "losses, says",
    [
        ([2.0, 1.0], "falls from 2.00 to 1.00"),
        ([1.0, 2.0], "rises from 1.00 to 2.00"),
        ([2.0, 0.5, 3.0], "rises from 2.00 to 3.00"),
        ([1.0, 1.0], "stays at 1.00"),
        ([1.0], "stays at 1.00"),
        ([1.001, 1.004], "stays at 1.00"),  # what a reader is told must not contradict itself
        ([1.0, NAN], "goes from 1.00 to nan"),
        ([NAN, NAN], "ends at nan"),
    ],
)
def test_the_alt_text_of_curves_says_where_the_loss_goes(losses, says):
    rows = [
        {"epoch": i, "loss": loss, "val_acc": 0.5, "val_balanced_acc": 0.4, "val_auc": 0.75}
        for i, loss in enumerate(losses, 1)
    ]
    alt = plots.curves(History(rows)).alt_text
    assert f"the training loss {says}. Right" in alt
    assert ("over 1 epoch." in alt) == (len(losses) == 1)


def test_the_alt_text_of_a_montage_names_classes_without_a_clip():
    split = Split(torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]))
    assert "no such clip: second." in plots.montage(split, ("first", "second", "third"), slices=2).alt_text
    whole = Split(torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    assert "no such clip" not in plots.montage(whole, ("first", "second"), slices=2).alt_text
