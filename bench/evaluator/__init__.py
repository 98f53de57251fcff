"""Does our judge of calls say what the Berkeley leaderboard's says?"""
