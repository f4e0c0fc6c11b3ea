# The graph of dvc.yaml for Snakemake: plain `snakemake` makes everything, `snakemake train@chars_md4` one stage of it.
include: "workflow/stages.smk"


rule all:
    default_target: True
    input:
        [output for stage in stages for output in stage.outputs],
    message:
        "Everything that params.yaml asks for"
