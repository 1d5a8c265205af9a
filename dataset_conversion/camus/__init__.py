"""CAMUS to nnU-Net: `nnunet-echo convert camus SOURCE`.

Each ED or ES frame of a view becomes one 2D case, `CAMUS_patient0001_4CH_ED`, with its pixels and spacing as they are:
background 0, left ventricle 1, myocardium 2 (without the cavity), left atrium 3. source.py says which releases
are read, raw_dataset.py what is written.

`--mode half_sequence` writes the cine of a view from ED to ES as one 3D case, `CAMUS_patient0001_4CH` (data/cine.py):
- `--labels all` (default, CAMUS-Full) keeps the masks of all frames, `--labels ed_es` (CAMUS-Semi) those of ED and ES,
  and every frame between holds the ignore label.
- `--clip 10 --size 256` are the clips of published work: ten frames from ED to ES, evenly spaced, 256 x 256 pixels.
- A few cines run from ES to ED: the frame numbers in Info_<view>.cfg say so, and such a cine is reversed. Without a
  cfg the end with the larger ventricle is ED, and a warning says so. Frames before ED or after ES are left out.
- Masks stay as they are, even where pixels lie apart from their structure, as tracking leaves some between ED and ES: a
  converter that cleans its references changes every score. A warning gives the number of such pixels.
- Only the NIfTI release has masks of the cines, so the other one has no such cases.

Splits (`--split`), always by patient:
- `5fold` (default): five folds, stratified by EF and image quality, over all patients but the official test patients.
  It is the default because nnU-Net's own pipeline (ensembles, nnUNetv2_find_best_configuration) needs five folds, and
  the official list, fixed before, still keeps its 50 test patients out of them.
- `official`: fold 0 is subgroup_training against subgroup_validation, for comparison with published numbers.
- `10fold`: the ten folds of the challenge, where the download has listSubGroups/. Each has its own test patients, so
  all cases go to imagesTr, and fold N leaves those of subGroup<N+1>_testing out of both of its sides.
- `7:1:2` and `file`, of any dataset: splits.py.

Exit code 0: every case that the source has was converted; what the download lacks (a view, a cfg) is a warning. 1: a
case that exists was refused, for the reason in the report, and the dataset holds the others. 2: nothing was converted,
there is no dataset.
"""

from .reader import Camus

READER = Camus
