"""Why a photo, an object or a row is not used further on: every drop reason, in the order of the stages.

A reason may be followed by a colon and details; tables are counted by what stands before the colon.
"""

KEPT = "kept"  # what rows without a reason are counted as

# Photo files
AVIF = "AVIF photo"
CAMERA_RAW = "camera raw photo"
COPY = "copy of another photo"
EMPTY_FILE = "empty file"
HEIC = "HEIC photo"
JPEG_XL = "JPEG XL photo"
KILLS_WORKER = "photo kills its worker"
NOT_AN_IMAGE = "not an image"
PHOTO_TOO_SMALL = "photo too small"
TOO_MANY_PIXELS = "too many pixels"
UNREADABLE = "unreadable"
STYLE_PICTURE = "picture of a style"
MASK_UNREADABLE = "given mask cannot be read"
MASK_SHAPE = "given mask has another shape"
MASK_EMPTY = "given mask is black all over"

# Detected objects
NO_OBJECT = "no object"
LOW_SCORE = "low score"
TOO_SMALL = "too small"
TOO_LARGE = "too large"
TOO_THIN = "too thin"
CUT_OFF = "cut off"
MASK_FILL = "mask does not fill its box"
INSIDE_ANOTHER = "inside another"
TOO_MANY_OBJECTS = "too many objects"
BLURRED = "blurred"
EXCLUDED = "excluded class"
REJECTED = "rejected by a person"

# Captions
NOT_DETECTED = "photo is not in the objects table"
PHOTO_CHANGED = "photo changed since detection"
CAPTION_MISMATCH = "caption does not match"

# Rows
NO_CAPTION = "no caption"
UNUSABLE_MASK = "unusable mask"
UNKNOWN_OBJECT = "object is not in the objects table"
NEAR_DUPLICATE = "near-duplicate of a photo of another split"
NEAR_DUPLICATE_IDENTITY = "near-duplicate of a photo of another identity"
SPLITS_MIXED = "shows objects of different splits"
OBJECT_DROPPED = "object dropped by detect"  # counted only; such an object makes no row

ADVICE = {  # what makes the photos that were dropped for a reason usable
    AVIF: "pip install --upgrade pillow",
    CAMERA_RAW: "convert it to JPEG, PNG or TIFF",
    HEIC: "pip install 'taming[heif]'",
    JPEG_XL: "pip install 'taming[jxl]'",
    TOO_MANY_PIXELS: "raise detect.max_pixels",
}


def with_details(reason: str, details: object) -> str:
    """A reason and its details.

    >>> with_details(UNREADABLE, "truncated file")
    'unreadable: truncated file'
    """
    return f"{reason}: {details}"


def reason_of(drop_reason: str | None) -> str:
    """A drop reason without its details.

    >>> reason_of("unreadable: truncated file"), reason_of(None)
    ('unreadable', 'kept')
    """
    return KEPT if drop_reason is None else drop_reason.split(":")[0]


def score_too(bound: str, name: str) -> str:
    """The reason for a score of `detect.curation` outside its bounds; `bound` is low or high.

    >>> score_too("high", "nsfw")
    'nsfw too high'
    """
    return f"{name} too {bound}"
