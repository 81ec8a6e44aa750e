accelerate launch fine_tune.py --pretrained_model_name_or_path=model.ckpt \
    --dataset_config=dataset.toml --output_dir=out --output_name=text_encoder \
    --train_text_encoder --learning_rate_te=5e-7 --max_token_length=225 --clip_skip=2 \
    --learning_rate 1e-6 --max_train_steps 800 --min_snr_gamma=5 --sdpa --cache_latents
