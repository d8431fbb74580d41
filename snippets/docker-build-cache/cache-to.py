if os.getenv("VARIABLE") != "VALUE":
    cache_arg = []
