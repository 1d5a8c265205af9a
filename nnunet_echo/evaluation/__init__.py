"""How good a segmentation is: metrics per frame, left-ventricular volumes and ejection fraction per patient.

metrics      overlap and outline distances of one structure in one frame
lv_outline   the outline of the left ventricle, its mitral plane, apex and long axis
lv_volume    volumes and ejection fraction from one or two apical views
anatomy      whether a frame is anatomically possible
temporal     whether a sequence moves smoothly; end diastole and end systole by the area curve
agreement    statistics of predicted against reference values
evaluate     the command: a folder of predictions against a folder of references
"""
