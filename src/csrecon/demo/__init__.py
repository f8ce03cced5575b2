"""The page of `csrecon demo`: what it computes, free of Gradio, and the page that shows it."""
