"""Captioners of the real classes, a few thousand weights each, saved as transformers folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitConfig,
    GitForCausalLM,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

WORDS = "a picture of dog cat girl tree red blue green two with the and on in sitting standing"
WORDS += " near house sky grass small large black white cloud water describe this image one"
WORDS += " sentence user assistant : . , ##s ##ing"

TEMPLATE = (
    "{% for message in messages %}user : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} assistant :{% endif %}"
)

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}

SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "bos_token": "[DEC]",
    "eos_token": "[SEP]",
}


def save_tokenizer(folder: Path, *, framed: bool, extra: tuple[str, ...] = (), **special):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *extra, *WORDS.split()]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    if framed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    special = special or {"additional_special_tokens": list(extra)}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special, **SPECIAL)
    wrapped.save_pretrained(folder)
    return wrapped


def seeded(model, seed):
    """Give weights so large that different pictures give different words."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.35)
            elif "bias" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.1)
    return model


def save_blip(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder, framed=True)
    text = {**SIZES, "encoder_hidden_size": 32, "vocab_size": len(tokenizer)}
    text |= {"max_position_embeddings": 96, "projection_dim": 16, "is_decoder": True}
    text |= {"bos_token_id": 4, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    vision = {**SIZES, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    config = BlipConfig(
        text_config=text, vision_config=vision, projection_dim=16, image_text_hidden_size=16
    )
    seeded(BlipForConditionalGeneration(config), 1).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_git(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder, framed=True)
    config = GitConfig(
        vision_config={**SIZES, "image_size": 32, "patch_size": 16, "projection_dim": 16},
        **SIZES,
        vocab_size=len(tokenizer),
        max_position_embeddings=96,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    seeded(GitForCausalLM(config), 2).save_pretrained(folder)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor.save_pretrained(folder)
    return folder


def save_llava(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder, framed=False, extra=("<image>",))
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=16,
    )
    text = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        bos_token_id=4,
        eos_token_id=3,
        pad_token_id=0,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=image_token)
    seeded(LlavaForConditionalGeneration(config), 3).save_pretrained(folder)
    images = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
        image_token="<image>",
    )
    processor.save_pretrained(folder)
    return folder


def save_blip2(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder, framed=False, extra=("<image>",))
    words = {"vocab_size": len(tokenizer)}
    text = {"model_type": "opt", "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "word_embed_proj_dim": 32, "max_position_embeddings": 128}
    text |= {"pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 3}
    config = Blip2Config(
        vision_config={**SIZES, "image_size": 32, "patch_size": 8},
        qformer_config={**SIZES, **words, "encoder_hidden_size": 32},
        text_config={**text, **words},
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    seeded(Blip2ForConditionalGeneration(config), 4).save_pretrained(folder)
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(folder)
    return folder


def save_qwen2_vl(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    marks = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    tokenizer = save_tokenizer(folder, framed=False, extra=marks)
    image, video, start, end = (tokenizer.convert_tokens_to_ids(mark) for mark in marks)
    text = {**SIZES, "vocab_size": len(tokenizer), "num_key_value_heads": 2}
    text |= {"max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 4}
    text |= {"eos_token_id": 3, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 32, "patch_size": 8}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={**vision, "mlp_ratio": 2},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    seeded(Qwen2VLForConditionalGeneration(config), 5).save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(patch_size=8, min_pixels=32 * 32, max_pixels=64 * 64)
    images.save_pretrained(folder)
    template = TEMPLATE.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    return folder


def save_florence2(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = {"extra_special_tokens": {"image_token": "<image>"}}
    tokenizer = save_tokenizer(folder, framed=True, extra=("<image>",), **names)
    text = {"model_type": "bart", "vocab_size": len(tokenizer), "d_model": 32}
    text |= {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    text |= {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    text |= {f"{part}_ffn_dim": 64 for part in ("encoder", "decoder")}
    text |= {"max_position_embeddings": 256, "bos_token_id": 4, "eos_token_id": 3}
    text |= {"pad_token_id": 0, "decoder_start_token_id": 3, "forced_eos_token_id": 3}
    vision = {"embed_dim": [8, 8, 16, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    vision |= {"num_groups": [1, 1, 2, 2], "window_size": 4, "projection_dim": 32}
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=image)
    seeded(Florence2ForConditionalGeneration(config), 6).save_pretrained(folder)
    images = CLIPImageProcessorPil(
        size={"height": 64, "width": 64}, do_center_crop=False, image_seq_length=5
    )
    Florence2Processor(images, tokenizer, num_additional_image_tokens=0).save_pretrained(folder)
    return folder


SAVERS = {
    "blip": save_blip,
    "git": save_git,
    "llava": save_llava,
    "blip2": save_blip2,
    "qwen2_vl": save_qwen2_vl,
    "florence2": save_florence2,
}
