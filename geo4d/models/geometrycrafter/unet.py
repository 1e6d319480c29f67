"""The denoiser: Stable Video Diffusion's space-time UNet, conditioned by one token per frame.

Legend of shape letters: B clips, T frames, C channels, h w latent size, D token width.
"""

from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geo4d.errors import MissingExtraError
from geo4d.models.deep_cache import DeepCache
from geo4d.models.layers import attention, flatten_time_convs, set_norm_groups

try:
    from diffusers.models.attention_processor import Attention
    from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
except ImportError as error:
    raise MissingExtraError("diffusers", "geometrycrafter", "GeometryCrafter") from error


class OneTokenAttention:
    """Cross-attention to a single token: its weight is 1 whatever the query, so the value is the answer.

    The library's processor would project queries and keys for nothing, and for a token that is broadcast over all pixels
    it copies the projection's weights once per pixel.
    """

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, **unused: Any
    ) -> Tensor:
        if encoder_hidden_states.shape[1] != 1:
            raise ValueError(f"expected one token per sequence, got {encoder_hidden_states.shape[1]}")
        token = encoder_hidden_states[:, 0]
        if token.stride(0) == 0:
            token = token[:1]
        return attn.to_out[0](attn.to_v(token))[:, None].expand_as(hidden_states)


class SelfAttention:
    """Attention among the pixels of a frame, or the frames of a pixel, by ``layers.attention``: [N, L, C] to the same.

    The library's processor, with the same numbers, knows the fused kernel alone.
    """

    def __call__(self, attn: Attention, hidden_states: Tensor, *unused: Any, **also_unused: Any) -> Tensor:
        heads = (
            project(hidden_states).unflatten(-1, (attn.heads, -1))
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        return attn.to_out[0](attention(*heads))


class FrameTokenUNet(UNetSpatioTemporalConditionModel):
    """Same weights and blocks as the SVD UNet; only the way the conditioning enters differs.

    The spatial cross-attention of frame t sees the token of frame t alone; the temporal cross-attention sees the token
    of the window's first frame alone.
    """

    def __init__(self, *, norm_num_groups: int = 32, **config: Any) -> None:
        super().__init__(**config)
        set_norm_groups(flatten_time_convs(self), norm_num_groups)
        for name, module in self.named_modules():
            if isinstance(module, Attention) and name.endswith("attn2"):
                module.set_processor(OneTokenAttention())  # type: ignore[arg-type]
            elif isinstance(module, Attention):
                module.set_processor(SelfAttention())  # type: ignore[arg-type]

    def forward(  # type: ignore[override]
        self,
        sample: Float[Tensor, "B T C h w"],
        timestep: float | Float[Tensor, ""] | Float[Tensor, " 1"] | Float[Tensor, " B"],
        frame_tokens: Float[Tensor, "B T D"],
        added_time_ids: Float[Tensor, "B 3"],
        cache: DeepCache | None = None,
    ) -> Float[Tensor, "B T c h w"]:
        """One pass over a window.

        Args:
            sample: noisy latents and conditioning latents, already scaled and concatenated.
            timestep: ln(noise level) / 4, one for all clips or one each.
            frame_tokens: one image embedding per frame.
            added_time_ids: frames per second, motion bucket, noise augmentation.
            cache: of one window and condition, for the steps of one sampling run; None computes everything.
        Raises:
            ValueError: the latent height or width is not a multiple of 8 (pixels: of 64).
        """
        num_clips, num_frames = sample.shape[:2]
        if sample.shape[-2] % 8 or sample.shape[-1] % 8:
            raise ValueError(
                f"expected latents whose height and width are multiples of 8 (pixels: 64), "
                f"got {tuple(sample.shape[-2:])}; plan the size with geometrycrafter.pipeline.network_size"
            )
        dtype = self.conv_in.weight.dtype
        sample = sample.to(dtype)
        timesteps = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device).reshape(-1)
        embedding = self.time_embedding(self.time_proj(timesteps.expand(num_clips)).to(dtype))
        ids = self.add_time_proj(added_time_ids.flatten()).reshape(num_clips, -1)
        embedding = embedding + self.add_embedding(ids.to(dtype))

        hidden = self.conv_in(sample.flatten(0, 1))
        shared: dict[str, Any] = {
            "temb": embedding.repeat_interleave(num_frames, dim=0),
            "image_only_indicator": hidden.new_zeros(num_clips, num_frames),
        }
        tokens = {"encoder_hidden_states": frame_tokens.to(dtype).flatten(0, 1)[:, None]}

        def run_up(block: nn.Module, hidden: Tensor, skips: list[Tensor]) -> Tensor:
            count = len(cast(nn.ModuleList, block.resnets))
            used = tuple(skips[-count:])
            del skips[-count:]
            return block(
                hidden, res_hidden_states_tuple=used, **shared, **(tokens if _attends(block) else {})
            )

        skips = [hidden]
        for level, block in enumerate(self.down_blocks):
            if level == 1 and cache is not None and cache.holds:
                break
            hidden, outputs = block(hidden, **shared, **(tokens if _attends(block) else {}))
            skips.extend(outputs)
        *deep, outermost = self.up_blocks
        if cache is not None and cache.holds:
            del skips[len(cast(nn.ModuleList, outermost.resnets)) :]
            hidden = cache.read()
        else:
            hidden = self.mid_block(hidden, **shared, **tokens)
            for block in deep:
                hidden = run_up(block, hidden, skips)
            if cache is not None:
                cache.keep(hidden)
        hidden = run_up(outermost, hidden, skips)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.unflatten(0, (num_clips, num_frames))


def _attends(block: nn.Module) -> bool:
    return getattr(block, "has_cross_attention", False) is True
