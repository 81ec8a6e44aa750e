"""Captioners of the real classes, a few thousand weights each, saved as transformers folders."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    GitConfig,
    GitForCausalLM,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

WORDS = "a picture of dog cat girl tree red blue green two with the and on in sitting standing"
WORDS += " near house sky grass small large black white cloud water describe this image one"
WORDS += " sentence user assistant : . , ##s ##ing"

SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "bos_token": "[DEC]",
    "eos_token": "[SEP]",
}


def save_tokenizer(folder: Path, *, framed: bool, extra: tuple[str, ...] = ()):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", *extra, *WORDS.split()]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    if framed:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=list(extra), **SPECIAL
    )
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
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    text = {**sizes, "encoder_hidden_size": 32, "vocab_size": len(tokenizer)}
    text |= {"max_position_embeddings": 96, "projection_dim": 16, "is_decoder": True}
    text |= {"bos_token_id": 4, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    vision = {**sizes, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    config = BlipConfig(
        text_config=text, vision_config=vision, projection_dim=16, image_text_hidden_size=16
    )
    seeded(BlipForConditionalGeneration(config), 1).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_git(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder, framed=True)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = GitConfig(
        vision_config={**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 16},
        **sizes,
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
    template = (
        "{% for message in messages %}user : {% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %} assistant :{% endif %}"
    )
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
        image_token="<image>",
    )
    processor.save_pretrained(folder)
    return folder


SAVERS = {"blip": save_blip, "git": save_git, "llava": save_llava}
