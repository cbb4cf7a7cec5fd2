"""One function per painted scene of the mini world; each draws a picture from a random generator."""

import colorsys

import numpy as np
from numpy.random import Generator

from pipelines.mini.brushes import (
    SIDE,
    Colour,
    Picture,
    X,
    Y,
    blend,
    canvas,
    clouds,
    disc,
    gradient,
    grain,
    noise,
    over,
    painted,
    pine,
    rgb8,
    specks,
    stretched,
    tinted,
    wave,
)


def beach(rng: Generator) -> Picture:
    """Sky, sea, foam and sand."""
    horizon = rng.uniform(0.3, 0.5)
    shore = horizon + rng.uniform(0.1, 0.22)
    picture = clouds(rng, gradient(rng, (0.35, 0.65, 0.95), (0.75, 0.9, 1)), horizon, 0.6)
    depth = np.clip((Y - horizon) / (shore - horizon), 0, 1)
    sea = blend(tinted(rng, (0.05, 0.45, 0.7)), tinted(rng, (0.3, 0.8, 0.85)), depth)
    sea = sea + (noise(rng, (6, 40, 80))[..., None] - 0.5) * 0.25
    sand = tinted(rng, (0.93, 0.82, 0.58)) * grain(rng, 0.85, 0.3, (8, 32, 88, 176), 0.8)
    edge = shore + 0.02 * wave(rng, 6, 14)
    picture = over(over(picture, sea, horizon < Y), sand, edge < Y)
    return over(picture, 1.0, np.abs(Y - edge) < 0.012)  # foam


def snow(rng: Generator) -> Picture:
    """White hills, a few pines, and falling snow."""
    horizon = rng.uniform(0.4, 0.6) + 0.05 * wave(rng, 3, 7)
    white = grain(rng, 0.86, 0.12, (5, 12, 60)) * np.array([0.95, 0.98, 1.03])
    image, draw = canvas(over(gradient(rng, (0.6, 0.7, 0.82), (0.85, 0.9, 0.96)), white, horizon < Y))
    for _ in range(rng.integers(2, 7)):
        foot = SIDE * float(horizon.mean()) + rng.uniform(-2, 6)
        green = tuple((np.array((40, 80, 70)) + rng.integers(-12, 12, 3)).tolist())
        pine(draw, rng.uniform(0, SIDE), foot, rng.uniform(18, 50), green)
    specks(rng, draw, int(rng.integers(60, 160)), 0.5, 1.8)
    return painted(image)


def desert(rng: Generator) -> Picture:
    """Overlapping dunes with ripples."""
    picture = gradient(rng, (0.3, 0.6, 0.9), (0.98, 0.85, 0.65))
    for k in range(4):  # dunes, the nearest last
        crest = 0.38 + 0.15 * k + 0.06 * wave(rng, 3, 8)
        sand = tinted(rng, (0.93 - 0.06 * k, 0.62 - 0.05 * k, 0.3 - 0.02 * k), 0.04)
        ripples = 1 + 0.06 * np.sin(Y * rng.uniform(90, 150) + 48 * noise(rng, (3, 6, 12)))
        shade = 1 - 0.25 * np.clip(Y - crest, 0, 1)
        picture = over(picture, sand * (ripples * shade)[..., None], crest < Y)
    return picture


def night(rng: Generator) -> Picture:
    """Stars and a crescent over dark hills."""
    sky = gradient(rng, (0.02, 0.03, 0.14), (0.1, 0.12, 0.32))
    image, draw = canvas(sky)
    for _ in range(rng.integers(70, 170)):
        light = int(rng.uniform(150, 255))
        star = (light, light, min(255, light + 20))
        disc(draw, rng.uniform(0, SIDE), rng.uniform(0, SIDE * 0.95), rng.uniform(0.4, 1.5), fill=star)
    x, y, radius = rng.uniform(25, SIDE - 25), rng.uniform(18, 50), rng.uniform(10, 18)
    disc(draw, x, y, radius, fill=(250, 245, 210))
    disc(draw, x + 0.45 * radius, y - 0.18 * radius, radius, fill=rgb8(sky[3, 3]))  # covers a part of the moon
    return over(painted(image), (0.01, 0.02, 0.05), 0.88 + 0.05 * wave(rng, 3, 9) < Y)


def underwater(rng: Generator) -> Picture:
    """Light beams from above, weed on the ground, bubbles."""
    picture = gradient(rng, (0.1, 0.6, 0.8), (0.0, 0.15, 0.35))
    slant = rng.uniform(-0.5, 0.5)
    beams = np.sin((X + Y * slant) * rng.uniform(18, 40) + rng.uniform(0, 6)) * np.clip(1 - Y * 1.3, 0, 1)
    picture = picture + (beams * 0.12)[..., None]
    ground = 0.88 + 0.04 * np.sin(X * 9 + rng.uniform(0, 6))
    image, draw = canvas(over(picture, picture * 0.4 + np.array([0.27, 0.25, 0.15]), ground < Y))
    for _ in range(rng.integers(2, 6)):  # weed
        x, green = rng.uniform(0, SIDE), tuple((np.array((20, 120, 70)) + rng.integers(-20, 40, 3)).tolist())
        draw.line(
            [(x + 4 * np.sin(k * 0.9 + x), SIDE - k * 6) for k in range(rng.integers(4, 12))], fill=green, width=4
        )
    for _ in range(rng.integers(15, 40)):  # bubbles
        disc(draw, rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(1, 5), outline=(200, 240, 250))
    return painted(image)


def brick_wall(rng: Generator) -> Picture:
    """Rows of bricks, each offset by half a brick."""
    height = rng.uniform(12, 20)
    width, y, x = height * 2.2, Y * SIDE + rng.uniform(0, 30), X * SIDE + rng.uniform(0, 60)
    row = np.floor(y / height).astype(int)
    x = x + (row % 2) * width / 2
    tones = rng.uniform(0.75, 1.25, (80, 80))[row % 80, np.floor(x / width).astype(int) % 80]
    bricks = tinted(rng, (0.66, 0.27, 0.2)) * tones[..., None] * grain(rng, 0.85, 0.3, (44, 88, 176), 0.9)
    return over(bricks, tinted(rng, (0.78, 0.74, 0.68)), (y % height < 1.8) | (x % width < 1.8))


def checkerboard(rng: Generator) -> Picture:
    """Tiles in perspective before a wall."""
    horizon = rng.uniform(0.3, 0.45)
    wall = tinted(rng, (0.75, 0.72, 0.78), 0.15) * (1 - 0.25 * Y)[..., None]
    distance = 1 / np.maximum(Y - horizon + 0.06, 1e-3)
    tiles = rng.uniform(1.6, 3)
    across = np.floor((X - 0.5) * distance * tiles + rng.uniform(0, 2))
    light = (across + np.floor(distance * tiles * 0.55)) % 2 > 0
    floor = over(
        np.zeros_like(wall) + tinted(rng, (0.07, 0.07, 0.08), 0.05), tinted(rng, (0.95, 0.95, 0.95), 0.04), light
    )
    return over(wall, floor, horizon < Y)


def wooden_table(rng: Generator) -> Picture:
    """Planks from above."""
    y, height = Y * SIDE + rng.uniform(0, 40), rng.uniform(18, 40)
    tones = rng.uniform(0.8, 1.15, 40)[np.floor(y / height).astype(int) % 40]
    streaks = (tones * (0.82 + 0.3 * stretched(rng, SIDE, 10)))[..., None]
    planks = tinted(rng, (0.62, 0.42, 0.24), 0.07) * streaks * grain(rng, 0.9, 0.2, (6, 12))
    return over(planks, planks * 0.55, y % height < 1.6)


def city_at_night(rng: Generator) -> Picture:
    """Two rows of houses with lit windows."""
    image, draw = canvas(gradient(rng, (0.05, 0.05, 0.18), (0.35, 0.2, 0.4)))
    for layer in range(2):  # the nearer houses are lower and darker
        x = -5.0
        while x < SIDE:
            width, roof = rng.uniform(16, 34), SIDE - 10 - rng.uniform(50, 125) + 25 * layer
            tone = int(26 - 14 * layer + rng.integers(0, 12))
            draw.rectangle((x, roof, x + width, SIDE), fill=(tone, tone, tone + 14))
            for left in np.arange(x + 3, x + width - 4, 6):
                for top in np.arange(roof + 5, SIDE - 6, 8):
                    if rng.random() < 0.5:
                        lamp = (255, int(rng.integers(190, 240)), int(rng.integers(80, 150)))
                        draw.rectangle((left, top, left + 2.5, top + 4), fill=lamp)
            x += width + rng.uniform(0, 4)
    return painted(image)


def outer_space(rng: Generator) -> Picture:
    """Coloured nebulae, stars, and one or two planets."""
    picture = np.zeros((SIDE, SIDE, 3)) + np.array([0.02, 0.01, 0.05])
    for mist, start, strength in [((0.45, 0.1, 0.5), 0.45, 0.9), ((0.1, 0.25, 0.55), 0.5, 0.8)]:
        amount = np.clip((noise(rng, (3, 6, 12, 24)) - start) * 4, 0, 1)
        picture = picture + amount[..., None] * tinted(rng, mist, 0.13) * strength
    image, draw = canvas(picture)
    specks(rng, draw, int(rng.integers(60, 140)), 0.3, 1.2)
    for _ in range(rng.integers(1, 3)):  # planets, lit from above
        x, y, radius, colour = rng.uniform(0, SIDE), rng.uniform(0, SIDE), rng.uniform(8, 22), rng.uniform(0.3, 0.95, 3)
        disc(draw, x, y, radius, fill=rgb8(colour))
        draw.chord((x - radius, y - radius, x + radius, y + radius), 20, 200, fill=rgb8(colour * 0.7))
        if rng.random() < 0.5:
            ring = (x - radius * 1.7, y - radius * 0.35, x + radius * 1.7, y + radius * 0.35)
            draw.ellipse(ring, outline=(230, 220, 200), width=2)
    return painted(image)


def lava(rng: Generator) -> Picture:
    """Dark rock with glowing cracks."""
    cracks = np.minimum(
        np.abs(noise(rng, (5, 10, 20), 0.6) - 0.5) * 14, np.abs(noise(rng, (9, 18, 36), 0.6) - 0.5) * 18
    )
    glow = np.clip(1 - cracks, 0, 1)
    rock = np.array([0.13, 0.1, 0.1]) * grain(rng, 0.6, 0.9, (20, 60, 120), 0.9)
    return blend(rock, blend((0.9, 0.2, 0.02), (1, 0.85, 0.25), np.clip(glow * 1.2 - 0.2, 0, 1)), glow)


def rainbow(rng: Generator) -> Picture:
    """An arch between light clouds and grass."""
    bands = np.array([
        (0.93, 0.2, 0.2), (0.98, 0.6, 0.15), (0.99, 0.92, 0.25), (0.3, 0.8, 0.35), (0.25, 0.5, 0.95), (0.45, 0.25, 0.75)
    ])  # fmt: skip
    picture = clouds(rng, gradient(rng, (0.45, 0.72, 0.97), (0.85, 0.94, 1)), 1, 0.35)
    distance = np.hypot(X - rng.uniform(0.3, 0.7), Y - rng.uniform(0.85, 1.1))
    across = (rng.uniform(0.55, 0.75) - distance) / rng.uniform(0.16, 0.24)
    arch = bands[np.clip((across * 6).astype(int), 0, 5)] * 0.85 + picture * 0.15
    grass = tinted(rng, (0.35, 0.7, 0.3)) * grain(rng, 0.8, 0.4, (20, 60))
    return over(over(picture, arch, (across > 0) & (across < 1)), grass, 0.82 + 0.04 * wave(rng, 6, 6) < Y)


def polka_dots(rng: Generator) -> Picture:
    """Pale dots on one bright colour."""
    count, hue = rng.uniform(6, 9), rng.random()
    x, y = X * count + rng.uniform(0, 1), Y * count + rng.uniform(0, 1)
    x = x + (np.floor(y) % 2) * 0.5
    ground = np.zeros((SIDE, SIDE, 3)) + np.array(colorsys.hsv_to_rgb(hue, 0.55, 0.95))
    dots = colorsys.hsv_to_rgb((hue + rng.choice([0, 0.5])) % 1, 0.08, 1)
    return over(ground, dots, np.hypot(x % 1 - 0.5, y % 1 - 0.5) < 0.3)


def theater_stage(rng: Generator) -> Picture:
    """A red curtain, boards, and two spotlights."""
    folds = 0.35 + 0.6 * (0.5 + 0.5 * np.sin(X * rng.uniform(50, 80)))
    curtain = np.array([0.55, 0.05, 0.1]) * (folds * (1 - 0.2 * Y))[..., None]
    picture = over(curtain, np.array([0.45, 0.28, 0.15]) * grain(rng, 0.7, 0.3, (4, 80)), Y > 0.72)
    for x in rng.uniform(0.1, 0.9, 2):  # spotlights
        light = np.clip(1 - np.abs(X - x - rng.uniform(-0.5, 0.5) * Y) / (0.05 + 0.22 * Y), 0, 1) * 0.4
        picture = picture + light[..., None] * np.array([1, 0.95, 0.7])
    return picture


def room(rng: Generator) -> Picture:
    """Striped wallpaper with a window, and a wooden floor."""
    hue, floor = rng.random(), rng.uniform(0.62, 0.72)
    stripes = np.floor(X * rng.uniform(10, 16)) % 2
    wall = blend(colorsys.hsv_to_rgb(hue, 0.4, 0.8), colorsys.hsv_to_rgb(hue, 0.25, 0.93), stripes)
    picture = over(over(wall, wooden_table(rng), floor < Y), 0.97, np.abs(Y - floor) < 0.02)
    left, width, top, bottom = rng.uniform(0.05, 0.65), rng.uniform(0.22, 0.3), 0.08, 0.42
    window = (left < X) & (left + width > X) & (top < Y) & (bottom > Y)
    pane = (left + 0.02 < X) & (left + width - 0.02 > X) & (top + 0.02 < Y) & (bottom - 0.02 > Y)
    cross = (np.abs(X - left - width / 2) < 0.012) | (np.abs(Y - (top + bottom) / 2) < 0.012)
    return over(over(picture, 1.0, window), (0.65, 0.85, 0.98), pane & ~cross)


def grass_field(rng: Generator) -> Picture:
    """A green hill under clouds."""
    horizon = rng.uniform(0.3, 0.5) + 0.06 * wave(rng, 2, 6)
    sky = clouds(rng, gradient(rng, (0.4, 0.68, 0.96), (0.8, 0.92, 1)), 0.5, 0.8)
    blades = (0.6 + 0.6 * stretched(rng, 30, SIDE))[..., None]
    return over(sky, tinted(rng, (0.3, 0.62, 0.18)) * blades * grain(rng, 0.8, 0.4, (5, 30)), horizon < Y)


def cloudy_sky(rng: Generator) -> Picture:
    """Clouds only."""
    return clouds(rng, gradient(rng, (0.2, 0.5, 0.92), (0.6, 0.83, 0.99)), 2, 1.0)


def backdrop(rng: Generator, colour: Colour) -> Picture:
    """One colour with a random light; half of the pictures have a floor."""
    glow = 1.08 - 0.28 * np.hypot(X - rng.uniform(0.2, 0.8), Y - rng.uniform(0.1, 0.6))
    floor = rng.uniform(0.65, 0.8) if rng.random() < 0.5 else 2
    return tinted(rng, colour, 0.04) * (glow * np.where(floor < Y, 0.9, 1.0))[..., None]
