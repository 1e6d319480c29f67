"""Many clips, a result for each, over the processes of one machine and over machines that share a folder."""
