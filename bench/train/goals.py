"""What each figure has to reach, said beside what it is."""

AT_LEAST = {
    "exact lora": 0.95,
    "exact rslora": 0.95,
    "exact activated": 0.95,
    "exact adalora": 0.9,
    "replay tiny": 3.0,
    "replay": 3.0,
    "resumed": 20.0,
    "outcomes": 0.9,
    "outcomes gain": 0.05,
}
AT_MOST = {
    "trainer_time": 0.8,
    "trainer_time_2": 0.8,
    "trainer_memory": 0.8,
    "trainer_run": 0.7,
    "exact qlora behind lora": 0.05,
    "reading": 0.1,
    "reading interleaved: share decoded": 0.02,
}
