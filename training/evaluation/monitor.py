"""A few figures of quality, quickly, to watch a run by. Knows neither runs nor models.

They are those of the protocol, of one seed: for choosing among the epochs of a run, not for reporting.
"""

from torch import Tensor

from training.evaluation.extractor import Extractor
from training.evaluation.fidelity import frechet_distance, label_agreement, precision_recall

IMAGES = 10_000


class Monitor:
    """Compares images with real ones. Equal images give equal figures; no random number is drawn."""

    def __init__(self, extractor: Extractor, real: Tensor) -> None:
        """`real` images are uint8 `(M, 1, 28, 28)`, of training or of testing; the first `IMAGES` are used."""
        self._extractor = extractor
        self._real = extractor.features(real[:IMAGES])

    def figures(self, images: Tensor, labels: Tensor | None = None) -> dict[str, float]:
        """Figures of uint8 images `(N, 1, 28, 28)`, best with N = `IMAGES`; of equal N they can be compared.

        `labels`, int64 `(N,)`, are those that a model was asked for. Lower `frechet_distance` is better; of
        `precision`, `recall` and, where there are labels, `label_agreement`, higher is.
        """
        features = self._extractor.features(images)
        precision, recall = precision_recall(features, self._real)
        figures = {
            "frechet_distance": frechet_distance(features, self._real),
            "precision": precision,
            "recall": recall,
        }
        if labels is not None:
            figures["label_agreement"] = label_agreement(self._extractor.probabilities(features), labels)
        return figures
