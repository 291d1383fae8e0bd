"""``mobtk doctor``."""

import click

from mobtk.cli import json_option, show


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """What mobtk finds on this machine, and what is wrong with its plugins."""
    import msgspec
    import torch

    from mobtk.backbones.selective_scan import implementation
    from mobtk.errors import BadInput
    from mobtk.inventory import faults
    from mobtk.runs import environment, find_device, use_bfloat16

    device, found = find_device("auto"), [msgspec.to_builtins(f) for f in faults()]
    try:
        scan = implementation(device)
    except BadInput as error:
        scan = "none"
        found.append({"what": "selective scan", "problem": str(error), "serious": True})
    result = {
        **environment(),
        "device": str(device),
        "threads": torch.get_num_threads(),
        "precision auto": "bfloat16" if use_bfloat16("auto", device) else "float32",
        "selective scan": scan,
        "problems": found,
    }
    lines = [f"{key:<16}{value}" for key, value in result.items() if key not in ("packages", "plugins", "problems")]
    lines += [f"{name:<16}{version}" for name, version in result["packages"].items()]
    lines.append(f"{'plugins':<16}{', '.join(result['plugins'])}")
    lines += [f"{p['what']}: {p['problem']}" for p in found] or ["no problems"]
    show(result, as_json, "\n".join(lines))
    if any(f["serious"] for f in found):
        raise SystemExit(1)
