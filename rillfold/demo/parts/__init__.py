"""The parts of the story, one module each, in the order of `ALL`."""

from rillfold.demo.parts import automate, fold, produce, replay, serve, summary, train
from rillfold.demo.story import Part

ALL: tuple[Part, ...] = (
    Part("produce", "Two companies say what they know", produce.tell),
    Part("fold", "Faust folds it while you look", fold.tell),
    Part("train", "A LoRA for each company, from exact offsets", train.tell),
    Part("serve", "One batch, three minds", serve.tell),
    Part("automate", "A job that survives kill -9", automate.tell),
    Part("replay", "The same again, byte for byte", replay.tell),
    Part("summary", "What it comes to", summary.tell),
)
