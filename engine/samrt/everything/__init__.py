"""Everything mode: all masks of an image, from a grid of points, without a prompt by a person.

Parameters, their meaning and the order of the steps are those of ``SamAutomaticMaskGenerator`` of
the package ``segment-anything`` (Kirillov et al. 2023, arXiv 2304.02643, appendix D): every point
of a grid is a prompt; of its masks those stay that the model rates well, that hardly change with
the threshold, and that do not end at the edge of a crop; of masks with nearly the same box the
best one stays. Crops of the image may be searched as well.

======================  =====================================================================
module                  what it does
======================  =====================================================================
:mod:`.options`         the parameters and what is wrong with them
:mod:`.defaults`        thresholds per model family, with the reason
:mod:`.grid`            points, crops of the image
:mod:`.filters`         edge of a crop, boxes that overlap, small regions
:mod:`.findings`        the masks found, as run lengths; records in SAM's form
:mod:`.generator`       the loop
======================  =====================================================================
"""
