"""Tiny real components of the registered pipeline classes, saved as the Hub holds them.

Every class is the real one with one or two narrow layers and random weights; 32 to 64 px.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel

SIDE = 64
_CLIP_END = ("<|startoftext|>", "<|endoftext|>")
_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _clip_tokenizer():
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *_CLIP_END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _qwen_tokenizer():
    from transformers import Qwen2Tokenizer

    special = [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
        "<|image_pad|>", "<|video_pad|>",
    ]  # fmt: skip
    tokens = [*sorted(ByteLevel.alphabet()), *special]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[],
        additional_special_tokens=special[1:],
    )  # fmt: skip
    tokenizer.chat_template = _CHAT
    return tokenizer


def _clip_text(width=16, *, projection=False):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, num_attention_heads=2, num_hidden_layers=2,
        vocab_size=520, projection_dim=width, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def _vae(channels=4):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=channels,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        shift_factor=0.1, scaling_factor=0.5,
    )  # fmt: skip


def stable_diffusion(in_channels=9):
    """Return the components of SD 1.5 inpainting, or with 4 channels of a turbo model."""
    from diffusers import PNDMScheduler, StableDiffusionInpaintPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, sample_size=32,
        in_channels=in_channels, out_channels=4, cross_attention_dim=16, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return StableDiffusionInpaintPipeline(
        vae=_vae(), text_encoder=_clip_text(), tokenizer=_clip_tokenizer(), unet=unet,
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            skip_prk_steps=True, steps_offset=1,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl(in_channels=9):
    """Return the components of SDXL inpainting."""
    from diffusers import (
        EulerDiscreteScheduler,
        StableDiffusionXLInpaintPipeline,
        UNet2DConditionModel,
    )

    unet = UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, sample_size=32,
        in_channels=in_channels, out_channels=4, cross_attention_dim=32, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        transformer_layers_per_block=(1, 1), addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=16 + 6 * 8,
    )  # fmt: skip
    return StableDiffusionXLInpaintPipeline(
        vae=_vae(), unet=unet, text_encoder=_clip_text(), tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip_text(projection=True), tokenizer_2=_clip_tokenizer(),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            timestep_spacing="leading", steps_offset=1,
        ),
    )  # fmt: skip


def _qwen3(layers=2):
    from transformers import Qwen3Config

    return Qwen3Config(
        hidden_size=16, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, vocab_size=300, max_position_embeddings=1024,
    )  # fmt: skip


def z_image():
    """Return the components of Z-Image inpainting."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        ZImageInpaintPipeline,
        ZImageTransformer2DModel,
    )
    from transformers import Qwen3Model

    transformer = ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=16, dim=32, n_layers=1,
        n_refiner_layers=1, n_heads=2, n_kv_heads=2, norm_eps=1e-5, qk_norm=True, cap_feat_dim=16,
        rope_theta=256.0, t_scale=1000.0, axes_dims=[8, 4, 4], axes_lens=[1024, 32, 32],
    )  # fmt: skip
    # Padding tokens are made by `torch.empty`.
    with torch.no_grad():
        transformer.x_pad_token.normal_()
        transformer.cap_pad_token.normal_()
    return ZImageInpaintPipeline(
        vae=_vae(16), text_encoder=Qwen3Model(_qwen3()), tokenizer=_qwen_tokenizer(),
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def flux2_klein():
    """Return the components of FLUX.2 klein inpainting."""
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinInpaintPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3ForCausalLM

    transformer = Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=48, timestep_guidance_channels=16,
        axes_dims_rope=[4, 4, 4, 4], guidance_embeds=False,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    return Flux2KleinInpaintPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=vae,
        text_encoder=Qwen3ForCausalLM(_qwen3(28)), tokenizer=_qwen_tokenizer(),
        transformer=transformer, is_distilled=True,
    )  # fmt: skip


def flux_fill():
    """Return the components of FLUX.1 Fill."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxFillPipeline,
        FluxTransformer2DModel,
    )
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = [chr(i) for i in range(33, 127)]
    pieces = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>", "▁")]
    tokenizer = T5Tokenizer(vocab=[*pieces, *((letter, -1.0) for letter in letters)], extra_ids=0)
    # Latents 4·4, masked photo 4·4, mask 2² · 4 pixels per latent (VAE of factor 2).
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=48, out_channels=16, num_layers=1, num_single_layers=1,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
        pooled_projection_dim=16, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    encoder = T5EncoderModel(
        T5Config(d_model=16, d_ff=16, d_kv=8, num_heads=2, num_layers=1, vocab_size=200)
    )
    return FluxFillPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=_vae(),
        text_encoder=_clip_text(), tokenizer=_clip_tokenizer(), text_encoder_2=encoder,
        tokenizer_2=tokenizer, transformer=transformer,
    )  # fmt: skip


def qwen_image_edit():
    """Return the components of Qwen-Image-Edit inpainting."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImageEditInpaintPipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
    )

    tokenizer = _qwen_tokenizer()
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 300,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2,
            "out_hidden_size": 16, "fullatt_block_indexes": [0],
        },
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=16, guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    return QwenImageEditInpaintPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
        vae=vae, text_encoder=Qwen2_5_VLForConditionalGeneration(config), tokenizer=tokenizer,
        processor=None, transformer=transformer,
    )  # fmt: skip


PIPELINES = {
    "sd15": stable_diffusion,
    "sd15-lcm": stable_diffusion,
    "sd15-face-id": stable_diffusion,
    "sdxl": stable_diffusion_xl,
    "z-image-turbo": z_image,
    "flux2-klein": flux2_klein,
    "qwen-image-edit": qwen_image_edit,
    "flux1-fill": flux_fill,
    "sd-turbo": lambda: stable_diffusion(4),
    "sdxl-turbo": lambda: stable_diffusion_xl(4),
}
"""Name in the registry → what makes a tiny pipeline of its class."""


def save(name: str, folder: Path) -> Path:
    """Save the tiny pipeline of a registered name as the Hub holds it, weights as safetensors."""
    torch.manual_seed(0)
    pipeline = PIPELINES[name]()
    pipeline.save_pretrained(folder, safe_serialization=True)
    if name == "qwen-image-edit":
        _save_processor(pipeline, folder)
    return folder


def save_adapter(file: Path) -> Path:
    """Save weights of rank 2 for one convolution and one linear layer of `stable_diffusion`."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(3)
    layers = {
        "lora_unet_conv_in": ((8, 2, 1, 1), (2, 9, 3, 3)),
        "lora_unet_mid_block_attentions_0_proj_in": ((16, 2, 1, 1), (2, 16, 1, 1)),
        "lora_te_encoder_layers_0_mlp_fc1": ((32, 2), (2, 16)),
    }
    weights = {}
    for name, (up, down) in layers.items():
        weights[f"{name}.lora_up.weight"] = torch.randn(up, generator=generator)
        weights[f"{name}.lora_down.weight"] = torch.randn(down, generator=generator)
        weights[f"{name}.alpha"] = torch.tensor(1.0)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, file)
    return file


def save_identity_reader(file: Path) -> Path:
    """Save what IP-Adapter-FaceID publishes, for `stable_diffusion` and identities of 8 numbers."""
    generator = torch.Generator().manual_seed(4)

    def drawn(*shape):
        return torch.randn(shape, generator=generator) / 2

    # Eight attentions of 16 numbers, every second one reads the prompt.
    attended = {f"{2 * i + 1}.{part}_ip.weight": drawn(16, 16)
                for i in range(4) for part in ("to_k", "to_v")}  # fmt: skip
    low_rank = {
        f"{i}.{part}_lora.{end}.weight": drawn(*((2, 16) if end == "down" else (16, 2)))
        for i in range(8) for part in ("to_q", "to_k", "to_v", "to_out") for end in ("down", "up")
    }  # fmt: skip
    reader = {
        "proj.0.weight": drawn(16, 8), "proj.0.bias": drawn(16), "proj.2.weight": drawn(64, 16),
        "proj.2.bias": drawn(64), "norm.weight": torch.ones(16), "norm.bias": torch.zeros(16),
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"image_proj": reader, "ip_adapter": attended | low_rank}, file)
    return file


def _save_processor(pipeline, folder):
    """Save what a `processor` folder holds; its own class needs a video library."""
    from transformers import Qwen2VLImageProcessorPil

    Qwen2VLImageProcessorPil(max_pixels=56 * 56).save_pretrained(folder / "processor")
    pipeline.tokenizer.save_pretrained(folder / "processor")
    index = json.loads((folder / "model_index.json").read_text())
    index["processor"] = ["transformers", "Qwen2VLProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
