accelerate launch --num_cpu_threads_per_process=1 fine_tune.py --v2 --v_parameterization \
    --pretrained_model_name_or_path=model-v --dataset_config=dataset.toml \
    --output_dir=out --output_name=v2 --save_model_as=safetensors \
    --scale_v_pred_loss_like_noise_pred --learning_rate=2e-6 --max_train_steps=1000 \
    --mixed_precision=bf16 --gradient_accumulation_steps=2
