"""Builds the 5B autoencoder as one of 64 processes, without the other 63, and prints what that took; see test_distributed.py."""

import json
import math
import resource

import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from pixio_robot.engine.sharding import materialise, own_shard, shard
from pixio_robot.pretraining.config import PretrainConfig
from pixio_robot.pretraining.objectives.reconstruction import Reconstruction

CONFIG = PretrainConfig(
    variant="pixio_vit5b16",
    image_size=256,
    decoder_dim=512,
    decoder_depth=32,
    decoder_heads=16,
    steps=1,
    lr=1e-3,
    drop_path=0.4,
)
PROCESSES = 64


def peak_bytes() -> int:
    """Return the most memory that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Build, share out, initialise."""
    distributed.init_process_group("fake", rank=0, world_size=PROCESSES, store=FakeStore())
    with torch.device("meta"):
        module = Reconstruction(CONFIG).module
    cpu = torch.device("cpu")
    shard(module, cpu)
    before = peak_bytes()
    materialise(module, cpu, seed=0)
    shards = {name: own_shard(value.detach()) for name, value in module.named_parameters()}
    fc1 = "encoder.blocks.47.mlp.fc1.weight"
    result = {
        "parameters": sum(value.numel() for value in module.parameters()),
        "own": sum(value.numel() for value in shards.values()),
        "peak_growth": peak_bytes() - before,
        "largest": max(value.numel() for value in module.parameters()),
        "fc1_std": shards[fc1].std().item(),
        "fc1_expected": math.sqrt(2 / (3072 + 4 * 3072)),
        "qkv_bias": shards["encoder.blocks.0.attn.qkv.bias"].abs().max().item(),
        "norm": shards["encoder.blocks.0.norm1.weight"].unique().tolist(),
        "positions_std": shards["encoder.pos_embed"].std().item(),
        "class_tokens_std": shards["encoder.reg_token"].std().item(),
        "patch_embed_std": shards["encoder.patch_embed.proj.weight"].std().item(),
        "patch_embed_expected": math.sqrt(2 / (3 * 16 * 16 + 3072)),
        "finite": all(bool(value.isfinite().all()) for value in shards.values()),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
