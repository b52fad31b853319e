"""Everyday things that any text-to-image model draws: what a technique retains where nothing else is named."""

EVERYDAY = (
    "apple", "backpack", "banana", "basket", "bed", "bench", "bicycle", "bird", "boat", "book", "bottle",
    "bowl", "bread", "bridge", "broccoli", "bucket", "building", "bus", "butterfly", "cake", "camera",
    "candle", "car", "carrot", "castle", "cat", "chair", "cheese", "clock", "cloud", "coat", "computer",
    "couch", "cow", "cup", "deer", "desk", "dog", "donut", "door", "duck", "elephant", "fence", "fish",
    "flag", "flower", "fork", "fountain", "frog", "garden", "giraffe", "glass", "guitar", "hammer", "hat",
    "horse", "house", "island", "kettle", "key", "kite", "ladder", "lake", "lamp", "laptop", "leaf",
    "lemon", "lion", "mirror", "moon", "motorcycle", "mountain", "mouse", "notebook", "orange", "oven",
    "owl", "painting", "panda", "pencil", "penguin", "piano", "pillow", "pizza", "plane", "plate",
    "pumpkin", "rabbit", "radio", "river", "road", "robot", "rocket", "rose", "sailboat", "sandwich",
    "scarf", "sheep", "shoe", "skateboard", "snowman", "sofa", "spoon", "statue", "street", "suitcase",
    "sun", "table", "teapot", "telephone", "television", "tent", "tiger", "tomato", "tower", "tractor",
    "train", "tree", "truck", "umbrella", "vase", "violin", "wheel", "window", "zebra",
)  # fmt: skip
