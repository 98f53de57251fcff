"""Files and jobs as OpenAI's clients tune with them: what a line teaches, what a job asks for, how it is told."""
