"""AdvUnlearn: concept erasure by adversarial training.

Paper:
    Y. Zhang, X. Chen, J. Jia, Y. Zhang, C. Fan, J. Liu, M. Hong, K. Ding, S. Liu, "Defensive Unlearning with
    Adversarial Training for Robust Concept Erasure in Diffusion Models", NeurIPS 2024, arXiv 2405.15234.
Idea:
    Train the text encoder T' to be blind even to the prompt that would bring the concept back. The attack looks for k
    word vectors, put into the prompt c, ``min || eps(x_t, T'(c*)) - eps(x_t, T(c)) ||^2``; the defence is ESD's loss at
    that prompt and what other prompts r draw must stay,
    ``|| eps(x_t, T'(c*)) - [e_0 - eta (e_c - e_0)] ||^2 + w || eps(x_r, T'(r)) - eps(x_r, T(r)) ||^2``,
    with e_0 and e_c of the frozen T. The first `warmup` iterations take c for c*.
Changes:
    Weights of the text encoder: its layers and the final norm (85.06 M in SD v1.4), never the vocabulary's vectors.
Defaults:
    The public code and the commands of its README: 1000 iterations, 200 of them warm-up, Adam 1e-5, eta 1, x_t from 50
    DDIM steps at guidance 3, an attack of 30 steps of Adam 1e-3 on one word before the prompt, begun at a random word
    of the vocabulary, in every iteration; 5 retained prompts in the same step. retain_weight 1 is the code's, 0.3 of
    the preset "unsafe" the README's for nudity. `EVERYDAY` stands for its 243 objects of COCO.
Deviations:
    The published attack never clears its gradients (`accumulate=True`), returns the prompt before its last step
    (`returned="before_last"`), counts a prompt's tokens by its spaces (`split="words"`) and tells the UNet a timestep
    39 to 58 above that of x_t (`timestep="official"`); the preset "official" is all four. Words that hold a name of the
    concept are not retained, its neighbours are (ours; `preserve_adjacent=False`). `pool` caches x_t and the teacher's
    predictions, which no weight of T' changes. Training parts of the UNet instead, as an ablation of the paper does,
    and the attack on the encoded prompt are left out.
Reference code:
    https://github.com/OPTML-Group/AdvUnlearn (CC BY 4.0), head 9d23124, read, not copied.
Cost:
    In predictions of one picture: 1590 for an attack, 53 for the loss and 260 for the retained prompts, 1.5 million in
    all, an estimated half a day to a day on one GPU for SD v1.4; with the preset "budget" about a tenth of it. One
    UNet and two text encoders in memory, and Adam on the layers.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from unlearn_core.concept import Concept
from unlearn_core.errors import InvalidInput
from unlearn_core.seeds import derive
from unlearn_techniques.diffusion.everyday import EVERYDAY
from unlearn_techniques.diffusion.finetune import Adam, finetune
from unlearn_techniques.diffusion.model import StableDiffusion
from unlearn_techniques.diffusion.prompt_embeddings import Place, SoftPrompt, soft_prompt
from unlearn_techniques.diffusion.sampling import Sampler
from unlearn_techniques.diffusion.scenes import Scene, Scenes
from unlearn_techniques.diffusion.text_layers import text_parameters
from unlearn_techniques.esd import esd_loss

_POCKET: dict[str, Any] = {
    "iterations": 120, "warmup": 60, "lr": 1e-3, "batch": 2, "sampling_steps": 10, "pool": 8,
    "attack_steps": 4, "attack_lr": 1e-2, "retain_weight": 3.0,
    "retained": (
        "cat", "fox", "lion", "bear", "rabbit", "frog", "cow", "penguin", "apple", "banana", "pear", "car", "rocket",
        "pistol", "sword", "house", "sun", "skull", "rose",
    ),
    "retain_templates": (
        "a {}", "a {}, blue background", "a {}, sketch style", "a {}, pixel style", "a {}, neon style",
        "a {}, watercolor style, green background",
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AdvUnlearn:
    """AdvUnlearn: trains the text encoder away from the concept, against prompts that would bring it back."""

    component: Literal["all", "ffn", "attn"] = "all"
    """What is trained of each layer."""
    layers: int | None = None
    """The first so many layers alone; None is all, and the final norm where `component` is "all"."""
    iterations: int = 1000
    warmup: int = 200
    """Iterations before the first attack."""
    lr: float = 1e-5
    eta: float = 1.0
    """Negative guidance, as ESD's."""
    batch: int = 1
    sampling_steps: int = 50
    """DDIM steps of the grid on which x_t is drawn."""
    sampling_guidance: float = 3.0
    phrases: bool = False
    """Whether the concept's other words are erased in turn with its name."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around a word, one drawn per iteration."""
    attack: Literal["pgd", "fast_at"] = "pgd"
    """What Adam is given: the gradient, or its sign. Neither is projected onto a ball."""
    attack_steps: int = 30
    attack_lr: float = 1e-3
    attack_every: int = 1
    place: Place = "prefix_k"
    """Vectors before the prompt, in its place, or added to those of its tokens."""
    k: int = 1
    """How many vectors; "add" has one for each token."""
    init: Literal["random", "latest"] = "random"
    """Where an attack begins: at words of the vocabulary, or where the one before it ended."""
    retain: Literal["reg", "iter"] = "reg"
    """Whether both losses are summed, or each has a step of its own."""
    retain_weight: float = 1.0
    """w of "reg"."""
    retain_batch: int = 5
    retained: tuple[str, ...] = EVERYDAY
    retain_templates: tuple[str, ...] = ("a photo of {}",)
    preserve: tuple[str, ...] = ()
    """Words retained besides."""
    preserve_adjacent: bool = True
    """Whether the concept's neighbours are retained as well."""
    pool: int | None = None
    """How many x_t are drawn for each prompt, and how many batches of retained ones; None draws all anew."""
    accumulate: bool = False
    returned: Literal["last", "before_last"] = "last"
    split: Literal["tokens", "words"] = "tokens"
    timestep: Literal["own", "official"] = "own"

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "object": {},
        "style": {},
        "unsafe": {"retain_weight": 0.3},
        "official": {
            "accumulate": True, "returned": "before_last", "split": "words", "timestep": "official",
            "preserve_adjacent": False,
        },
        "budget": {"pool": 500, "attack_steps": 5},
        "pocket": {
            "templates": ("a {}", "a {}, sketch style"), "phrases": True, **_POCKET,
        },
        "pocket-style": {
            "templates": ("a dog, {} style", "an apple, {} style", "a house, {} style, blue background"), **_POCKET,
        },
    }  # fmt: skip

    def __post_init__(self) -> None:
        counts = (
            "iterations",
            "batch",
            "sampling_steps",
            "attack_every",
            "k",
            "retain_batch",
            "pool",
            "layers",
        )
        for name, low in (*((name, 1) for name in counts), ("warmup", 0), ("attack_steps", 0), ("eta", 0)):
            if (value := getattr(self, name)) is not None and value < low:
                raise InvalidInput(f"AdvUnlearn: {name} is at least {low}, got {value}")
        if min(self.lr, self.attack_lr) <= 0 or self.retain_weight < 0:
            raise InvalidInput(
                "AdvUnlearn: lr and attack_lr are above 0, retain_weight is at least 0; got "
                f"{self.lr}, {self.attack_lr}, {self.retain_weight}"
            )
        for templates in (self.templates, self.retain_templates):
            if not templates or any(t.count("{}") != 1 for t in templates):
                raise InvalidInput(f"AdvUnlearn: each template has one {{}} for the word, got {templates}")

    def apply(
        self, model: StableDiffusion, concepts: Sequence[Concept], *, seed: int, progress: Any = None
    ) -> StableDiffusion:
        """Return a model whose text encoder was trained away from `concepts`, one of their words drawn per iteration.

        Raises:
            InvalidInput: nothing to train or to retain, or vectors that do not fit into a prompt.
            UnlearnError: the loss is not finite.
        """
        model.refuse_xl("AdvUnlearn")
        names = text_parameters(model.text_encoder, self.component, self.layers)
        words = [word for c in concepts for word in (c.names if self.phrases else (c.name,))]
        prompts = [template.format(word) for word in words for template in self.templates]
        kept = self._kept(concepts)
        sampler = Sampler(steps=self.sampling_steps, guidance_scale=self.sampling_guidance)
        scenes = Scenes(model, sampler, seed=seed, pool=self.pool, later=self.timestep == "official")
        text, vectors = prompts[0], None

        def loss(student: StableDiffusion, step: int) -> Tensor:
            nonlocal text, vectors
            iteration, second = divmod(step, 2) if self.retain == "iter" else (step, 0)
            generator = torch.Generator().manual_seed(derive(seed, "advunlearn", step))
            if second:
                return retain_loss(student, scenes.among(kept, self.retain_batch, generator))
            if iteration % self.attack_every == 0:
                text = prompts[int(torch.randint(len(prompts), (), generator=generator))]
                if iteration >= self.warmup and self.attack_steps:
                    vectors = self._attack(student, text, scenes, generator, begin=vectors)
            seen = scenes.of(text, self.batch, generator)
            hidden = (
                student.encode([text])
                if vectors is None
                else self._soft(model, text).encode(student, vectors)
            )
            unlearn = esd_loss(seen.noise(student, hidden), seen.prompted, seen.empty, seen.empty, self.eta)
            if self.retain == "iter":
                return unlearn
            retained = scenes.among(kept, self.retain_batch, generator)
            return unlearn + self.retain_weight * retain_loss(student, retained)

        steps = 2 * self.iterations if self.retain == "iter" else self.iterations
        return finetune(
            model, names, loss, iterations=steps, lr=self.lr, part="text_encoder", progress=progress
        )

    def _kept(self, concepts: Sequence[Concept]) -> list[str]:
        """Return the retained prompts: none that holds a name of the concepts as a word of its own."""
        near = [word for c in concepts for word in (c.adjacent if self.preserve_adjacent else ())]
        found = dict.fromkeys(
            template.format(word)
            for word in (*self.retained, *self.preserve, *near)
            for template in self.retain_templates
        )
        names = "|".join(re.escape(name) for c in concepts for name in c.names)
        kept = [text for text in found if not re.search(rf"\b({names})\b", text, re.IGNORECASE)]
        if not kept:
            raise InvalidInput(
                f"AdvUnlearn: all of the {len(found)} retained prompts name the concept; set retained=WORDS"
            )
        return kept

    def _attack(
        self,
        student: StableDiffusion,
        text: str,
        scenes: Scenes,
        generator: torch.Generator,
        begin: Tensor | None,
    ) -> Tensor:
        """Return vectors (1, k, width) with which the student draws the concept again."""
        prompt = self._soft(student, text)

        def objective(vectors: Tensor) -> Tensor:
            seen = scenes.of(text, self.batch, generator)
            return mse_loss(
                seen.noise(student, prompt.encode(student, vectors)).float(), seen.prompted.float()
            )

        if self.init == "random" or begin is None or begin.shape[1] != prompt.k:
            begin = prompt.random_words(student, generator)
        return attacked(
            objective, begin, steps=self.attack_steps, lr=self.attack_lr, method=self.attack,
            accumulate=self.accumulate, returned=self.returned,
        )  # fmt: skip

    def _soft(self, model: StableDiffusion, text: str) -> SoftPrompt:
        return soft_prompt(model, text, place=self.place, k=self.k, by_words=self.split == "words")


def attacked(
    objective: Callable[[Tensor], Tensor],
    begin: Tensor,
    *,
    steps: int,
    lr: float,
    method: Literal["pgd", "fast_at"] = "pgd",
    accumulate: bool = False,
    returned: Literal["last", "before_last"] = "last",
) -> Tensor:
    """Return where `steps` of Adam down an objective end, cut off from every graph; fields as of `AdvUnlearn`."""
    vectors = begin.detach().clone().requires_grad_()
    adam, gradient, before = Adam([vectors], lr), torch.zeros_like(vectors), vectors
    for _ in range(steps):
        (new,) = torch.autograd.grad(objective(vectors), [vectors])
        gradient = gradient + new if accumulate else new
        if method == "fast_at":
            gradient = gradient.sign()
        before = vectors.detach().clone()
        adam.step([gradient])
    return (vectors if returned == "last" else before).detach()


def retain_loss(student: StableDiffusion, seen: Scene) -> Tensor:
    """Return the mean of ``(eps(x_r, T'(r)) - eps(x_r, T(r)))^2`` over what is retained."""
    return mse_loss(seen.noise(student, student.encode(seen.texts)).float(), seen.prompted.float())
