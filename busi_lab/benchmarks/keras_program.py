"""Trains MobileNet with tf.keras and ImageDataGenerator; runs where TensorFlow is, and imports nothing of ours.

``python keras_program.py FOLDER SIZE IMAGES THREADS`` reads a batch size a line and answers with images a second.
Augmentation is that of the paper's table (Dajam & Qahmash, IJACSA 16(5), 2025), the optimiser Adam.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tensorflow as tf  # type: ignore[import-untyped,unused-ignore]

sys.stdout = sys.stderr  # what libraries print is no answer
folder, size, images, threads = sys.argv[1], *map(int, sys.argv[2:])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)
generator = tf.keras.preprocessing.image.ImageDataGenerator(
    rescale=1 / 255,
    rotation_range=5,
    width_shift_range=0.1,
    height_shift_range=0.1,
    shear_range=0.05,
    zoom_range=0.05,
    brightness_range=(1.0, 1.4),
    horizontal_flip=True,
    fill_mode="nearest",
)
base = tf.keras.applications.MobileNet(weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg")
model = tf.keras.Sequential([base, tf.keras.layers.Dense(3, activation="softmax")])
model.compile(optimizer="adam", loss="categorical_crossentropy")
flows = {}
for line in sys.stdin:
    batch_size = int(line)
    if batch_size not in flows:
        flows[batch_size] = generator.flow_from_directory(
            folder, (size, size), classes=["benign", "malignant", "normal"], batch_size=batch_size
        )
        model.fit(flows[batch_size], steps_per_epoch=2, verbose=0)  # builds the graph
    batches = max(1, images // batch_size)
    clock = time.perf_counter()
    model.fit(flows[batch_size], steps_per_epoch=batches, verbose=0)
    print(json.dumps(batches * batch_size / (time.perf_counter() - clock)), file=sys.__stdout__, flush=True)
