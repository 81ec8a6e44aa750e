accelerate launch --mixed_precision fp16 fine_tune.py --pretrained_model_name_or_path=model.ckpt \
    --dataset_config=dataset.toml --output_dir=out --output_name=full_fp16 \
    --mixed_precision=fp16 --full_fp16 --optimizer_type="Adafactor" \
    --optimizer_args "relative_step=False" "scale_parameter=False" \
    --learning_rate=1e-5 --max_train_steps=500 --save_precision=fp16 --xformers
