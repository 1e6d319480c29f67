"""What is planned is what the networks hold."""

from geo4d.models.geo4d.unet import UNet
from geo4d.models.geo4d.vae import VAE
from geo4d.training.recipes import PRESETS
from geo4d.training.tasks.geo4d.planning import plan


def test_a_plan_counts_the_networks_of_its_stage_and_grows_with_the_batch() -> None:
    preset = PRESETS["geo4d"]["smallest"]()
    name, stage = next((n, s) for n, s in preset.stages.items() if s.kind == "diffusion")
    unet = sum(p.numel() for p in UNet(preset.geo4d.unet).parameters())
    vae = sum(p.numel() for p in VAE(preset.geo4d.vae).parameters())
    (_, one), *_ = plan(preset, stage, name, micro_batch=1, processes=1).rows
    (_, two), *_ = plan(preset, stage, name, micro_batch=2, processes=1).rows
    assert (one.trained, one.frozen) == (unet, vae)
    assert one.activations < two.activations


def test_a_student_is_planned_beside_its_teacher_and_a_decoder_alone_holds_the_rest() -> None:
    preset = PRESETS["geo4d"]["smallest"]()
    unet = sum(p.numel() for p in UNet(preset.geo4d.unet).parameters())
    vae = VAE(preset.geo4d.vae)
    decoding = sum(p.numel() for part in (vae.decoder, vae.decoder_adaptor) for p in part.parameters())
    first = {stage.kind: (name, stage) for name, stage in reversed(preset.stages.items())}
    for kind in ("one-step", "decoder"):
        name, stage = first[kind]
        need = plan(preset, stage, name, micro_batch=1, processes=1).rows[0][1]
        if kind == "one-step":
            assert need.frozen == unet + sum(p.numel() for p in vae.parameters())
        else:
            assert need.trained == decoding
