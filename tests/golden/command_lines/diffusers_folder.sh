python fine_tune.py --pretrained_model_name_or_path=model --dataset_config=dataset.toml \
    --output_dir=out --output_name=diffusers_folder \
    --learning_rate=1e-6 --max_train_steps=1600 --mem_eff_attn \
    --optimizer_type=AdamW --optimizer_args weight_decay=0.01 betas=.9,.999 \
    --lr_scheduler=cosine_with_restarts --lr_scheduler_num_cycles=2 --lr_warmup_steps=10% \
    --seed=42
