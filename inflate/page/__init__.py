"""The Gradio page: prompts, pictures and videos in, a video out, each stage's frames shown as it ends.

``jobs`` runs a cascade in a thread and tells what happens; ``uploads`` checks what strangers hand in; ``files`` writes
what they take away; ``layout`` and ``handlers`` are the page itself, the only modules that know Gradio. The page talks
to the cascade only.
"""
