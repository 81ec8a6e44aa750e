@rem full paths in quotes, older spellings
set DATA=images
python -m accelerate.commands.launch fine_tune.py --pretrained_model_name_or_path="model.ckpt" --in_json="meta.json" ^
 --train_data_dir="%DATA%" --output_dir=out --output_name=old_form --shuffle_caption --train_batch_size=1 ^
 --learning_rate=5e-6 --max_train_steps=10000 --resolution=128 --dataset_repeats=2 --use_8bit_adam ^
 --diffusers_xformers --gradient_checkpointing --mixed_precision=bf16 --save_every_n_epochs=4 ^
 --persistent_data_loader_workers --max_data_loader_n_workers=1 --caption_extention=.txt
