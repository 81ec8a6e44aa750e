accelerate launch --num_cpu_threads_per_process 1 fine_tune.py \
    --pretrained_model_name_or_path=model.ckpt \
    --output_dir=out \
    --output_name=dataset_config \
    --dataset_config=dataset.toml \
    --save_model_as=safetensors \
    --learning_rate=1e-5 --max_train_steps=10000 \
    --use_8bit_adam --xformers --gradient_checkpointing \
    --mixed_precision=fp16
