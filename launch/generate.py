"""`infogan generate MODEL`: images for chosen or random codes, as PNG files or as one grid."""

from pathlib import Path

import click

from launch.plugin_option import plugin_option, say_what_changed


@click.command(short_help="Make images with a trained model, with codes of your choice.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="CODE=VALUE",
    help="Hold a code, by name or number; can be repeated.",
)
@click.option(
    "-n", "--number", type=click.IntRange(1, 1_000_000), default=64, show_default=True, help="How many images."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the noise and the codes left free.",
)
@click.option("--which", default="latest", show_default=True, help="Checkpoint of a run: latest, best, or its kimg.")
@click.option("--grid", type=click.Path(path_type=Path), metavar="FILE", help="Write one PNG that shows all of them.")
@click.option("--columns", type=click.IntRange(min=1), default=8, show_default=True, help="Of the grid.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write each image to DIR/00000000.png and so on.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@plugin_option
def command(
    model: Path,
    assignments: tuple[str, ...],
    number: int,
    seed: int,
    which: str,
    grid: Path | None,
    columns: int,
    out: Path | None,
    device: str,
) -> None:
    """Make images with MODEL, a run folder or an exported model.

    infogan generate runs/mnist-seed0 --set digit=7 --set c1=-1.5 -n 16 --grid seven.png
    """
    if grid is None and out is None:
        raise click.UsageError("say where the images go: --grid FILE, --out DIR, or both")
    from infogan import load, pictures
    from shards import atomic
    from shards.errors import UserError

    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: already there and not an empty folder; name a new one")
    opened = load(model, which=which, device=device)
    say_what_changed(model)
    images = opened.sample(number, seed=seed, codes=dict(_assignment(text) for text in assignments))
    if grid is not None:
        atomic.write_bytes(grid, pictures.png(pictures.grid(images, min(columns, number), least_side=56)))
        click.echo(f"{number} images: {grid}")
    if out is not None:
        if out.exists():
            out.rmdir()
        with atomic.folder(out) as beside:
            for index, image in enumerate(images.split(1)):
                (beside / f"{index:08d}.png").write_bytes(pictures.png(pictures.grid(image, 1)))
        click.echo(f"{number} images: {out}")


def _assignment(text: str) -> tuple[str | int, float]:
    code, _, value = text.partition("=")
    try:
        return int(code) if code.isdigit() else code, float(value)
    except ValueError:
        raise click.UsageError(f"--set {text}: must be CODE=NUMBER, as in --set digit=7") from None
