"""How good a segmentation is: metrics per frame, left-ventricular volumes and ejection fraction per patient.

metrics          overlap and outline distances of one structure in one frame
left_ventricle   its outline, mitral plane, apex and long axis; volumes and ejection fraction from one or two views
anatomy          whether a frame is anatomically possible
motion           whether a sequence moves smoothly; end diastole and end systole by the area curve
sequences        the tables of that, frame by frame and for each sequence
agreement        statistics of predicted against reference values
pairs            which prediction belongs to which reference, and reading both
evaluate         a folder of predictions against a folder of references
measure          a folder of masks, without references
summary, output  means over patients; the tables as files
"""
