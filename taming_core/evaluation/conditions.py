"""The conditions of an evaluation: what the images of a group were drawn with."""

OURS, NO_OBJECT, ANOTHER, REAL = "ours", "no_object", "another_object", "real_photos"
CLASS_NOUN, PASTED = "class_noun", "pasted"
TEXTUAL_INVERSION, DREAMBOOTH_LORA, DREAMBOOTH = "textual_inversion", "dreambooth_lora", "dreambooth"

# In words, in the order of tables.
NAMES = {
    OURS: "the object's tokens", TEXTUAL_INVERSION: "Textual Inversion", DREAMBOOTH_LORA: "DreamBooth LoRA",
    DREAMBOOTH: "DreamBooth", CLASS_NOUN: "class noun only", REAL: "real photos", ANOTHER: "another object's tokens",
    NO_OBJECT: "no object tokens", PASTED: "the seen photo itself",
}  # fmt: skip
COLOURS = {
    OURS: "#2f6db3", TEXTUAL_INVERSION: "#3a9a8c", DREAMBOOTH_LORA: "#7a5ba8", DREAMBOOTH: "#b3508a",
    CLASS_NOUN: "#a3a84f", REAL: "#8a8f98", ANOTHER: "#d8a03a", NO_OBJECT: "#c9cdd3", PASTED: "#d8703a",
}  # fmt: skip
